//! Every body of the originals that was recorded is read and written again without a loss.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bbs_models::*;

#[derive(serde::Deserialize)]
struct Body {
    from: String,
    message: String,
    body: String,
}

fn bodies() -> Vec<Body> {
    let lines = include_str!("recordings/bodies.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn again<M: Message>(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    Ok(M::decode_from_slice(bytes)?.encode_to_vec())
}

macro_rules! again {
    ($name:expr, $bytes:expr, $($message:ident)*) => {
        match $name {
            $(stringify!($message) => again::<$message>($bytes),)*
            kind => {
                let kind = kind.parse().expect("a message of this test's list or an event");
                Event::decode(kind, $bytes).map(|event| {
                    assert_eq!(event.kind(), kind);
                    event.encode()
                })
            }
        }
    };
}

#[test]
fn a_recorded_body_is_the_same_message_after_decoding_and_encoding() {
    let bodies = bodies();
    assert!(bodies.len() > 700, "only {} bodies", bodies.len());
    for Body { from, message, body } in bodies {
        let bytes = STANDARD.decode(&body).unwrap();
        let written = again!(
            message.as_str(), &bytes,
            ActualLRPGroupByProcessGuidAndIndexRequest ActualLRPGroupResponse
            ActualLRPGroupsByProcessGuidRequest ActualLRPGroupsRequest ActualLRPGroupsResponse
            ActualLRPLifecycleResponse ActualLRPsByProcessGuidsRequest
            ActualLRPsByProcessGuidsResponse ActualLRPsRequest ActualLRPsResponse CellsResponse
            ClaimActualLRPRequest CompleteTaskRequest CrashActualLRPRequest DesireLRPRequest
            DesireTaskRequest DesiredLRPByProcessGuidRequest DesiredLRPLifecycleResponse
            DesiredLRPResponse DesiredLRPSchedulingInfoByProcessGuidResponse
            DesiredLRPSchedulingInfosResponse DesiredLRPsRequest DesiredLRPsResponse
            DomainsResponse EvacuateClaimedActualLRPRequest EvacuateCrashedActualLRPRequest
            EvacuateRunningActualLRPRequest EvacuateStoppedActualLRPRequest EvacuationResponse
            EventsByCellId FailActualLRPRequest FailTaskRequest PingResponse RejectTaskRequest
            RemoveActualLRPRequest RemoveDesiredLRPRequest RemoveEvacuatingActualLRPRequest
            RemoveEvacuatingActualLRPResponse RetireActualLRPRequest StartActualLRPRequest
            StartTaskRequest StartTaskResponse TaskByGuidRequest TaskGuidRequest
            TaskLifecycleResponse TaskResponse TasksRequest TasksResponse UpdateDesiredLRPRequest
            UpsertDomainRequest UpsertDomainResponse
        )
        .unwrap_or_else(|error| panic!("{from}: {message}: {error}"));
        // The original writes the entries of a map in no order.
        if written != bytes {
            assert_eq!(wire::sorted(&written), wire::sorted(&bytes), "{from}: {message}");
        }
    }
}

/// Bytes of a message as a tree, with no knowledge of its type.
mod wire {
    use bytes::Buf;

    /// The fields, sorted; what may be a message is taken for one.
    pub fn sorted(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut fields = fields(bytes).expect("a message");
        for (tag, value) in &mut fields {
            if *tag & 7 == 2 && self::fields(value).is_some() {
                *value = sorted(value).into_iter().flat_map(|(_, value)| value).collect();
            }
        }
        fields.sort();
        fields
    }

    fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
        let mut fields = Vec::new();
        while bytes.has_remaining() {
            let tag = varint(&mut bytes)?;
            let value = match tag & 7 {
                0 => varint(&mut bytes)?.to_be_bytes().to_vec(),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    let value = bytes.get(..length)?.to_vec();
                    bytes.advance(length);
                    value
                }
                _ => return None,
            };
            fields.push((tag, value));
        }
        Some(fields)
    }

    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

/// A tag, a length and the bytes.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2, u8::try_from(value.len()).unwrap()];
    bytes.extend_from_slice(value);
    bytes
}

#[test]
fn what_a_newer_peer_adds_survives_at_every_depth() {
    // Field 127 (tag 0xfa 0x07) of DesireLRPRequest, DesiredLRP, Action and RunAction.
    let added = |mut bytes: Vec<u8>| {
        bytes.extend_from_slice(&[0xfa, 0x07, 2, b'h', b'i']);
        bytes
    };
    let run = added([field(1, b"/bin/true"), field(6, b"vcap")].concat());
    let action = added(field(3, &run));
    let lrp = added([field(1, b"guid"), field(7, &action)].concat());
    let request = added(field(1, &lrp));
    assert_eq!(again::<DesireLRPRequest>(&request).unwrap(), request);
}

#[test]
fn an_unknown_number_of_an_enum_is_kept() {
    let lrp = ActualLRP::decode_from_slice(&[10 << 3, 7]).unwrap();
    assert_eq!(lrp.presence, EnumValue::Unknown(7));
    assert_eq!(lrp.encode_to_vec(), [10 << 3, 7]);
}

#[test]
fn a_present_zero_and_a_present_empty_message_are_written() {
    let lrp = ActualLRP {
        actual_lrp_instance_key: ActualLRPInstanceKey::default().into(),
        routable: Some(false),
        ..Default::default()
    };
    assert_eq!(lrp.encode_to_vec(), [2 << 3 | 2, 0, 13 << 3, 0]);
    let request = ActualLRPsRequest { index: Some(0), ..Default::default() };
    let request = ActualLRPsRequest::decode_from_slice(&request.encode_to_vec()).unwrap();
    assert_eq!(request.index, Some(0));
}

#[test]
fn ports_are_written_one_by_one_and_read_either_way() {
    let lrp = DesiredLRP { ports: vec![8080, 2222], ..Default::default() };
    let written = lrp.encode_to_vec();
    assert_eq!(written, [14 << 3, 0x90, 0x3f, 14 << 3, 0xae, 0x11]);
    let packed = field(14, &[0x90, 0x3f, 0xae, 0x11]);
    assert_eq!(DesiredLRP::decode_from_slice(&packed).unwrap().ports, lrp.ports);
}

#[test]
fn a_field_of_another_wire_type_is_an_error() {
    assert!(DesiredLRPByProcessGuidRequest::decode_from_slice(&[1 << 3, 1]).is_err());
}
