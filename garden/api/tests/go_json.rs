//! The wire types against texts recorded from the reference.

use garden_api::go_json::{decode, encode};
use garden_api::{
    BulkEntry, BulkInfo, ContainerInfo, ContainerSpec, ErrorKind, Nanoseconds, NetInRequest,
    NetOutRule, Payload, ProcessSpec, PropertyValue, Source, StopRequest, WireError,
};

#[track_caller]
fn refused<T: serde::de::DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
    decode::<T>(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn errors_are_in_gos_words() {
    let table = [
        (refused::<ContainerSpec>("{"), "unexpected EOF"),
        (refused::<ContainerSpec>(""), "EOF"),
        (
            refused::<ContainerSpec>(r#"{"handle":1}"#),
            "json: cannot unmarshal number into Go struct field ContainerSpec.handle of type string",
        ),
        (
            refused::<ContainerSpec>("[]"),
            "json: cannot unmarshal array into Go value of type garden.ContainerSpec",
        ),
        (
            refused::<ContainerSpec>(r#"{"properties":{"a":1}}"#),
            "json: cannot unmarshal number into Go struct field ContainerSpec.properties of type string",
        ),
        (
            refused::<ContainerSpec>(r#"{"grace_time":"5s"}"#),
            "json: cannot unmarshal string into Go struct field ContainerSpec.grace_time of type time.Duration",
        ),
        (
            refused::<ContainerSpec>(r#"{"netin":{}}"#),
            "json: cannot unmarshal object into Go struct field ContainerSpec.netin of type []garden.NetIn",
        ),
        (
            refused::<ContainerSpec>(r#"{"env":"A=1"}"#),
            "json: cannot unmarshal string into Go struct field ContainerSpec.env of type []string",
        ),
        (
            refused::<ContainerSpec>(r#"{"limits":{"memory_limits":{"limit_in_bytes":-1}}}"#),
            "json: cannot unmarshal number -1 into Go struct field MemoryLimits.limits.memory_limits.limit_in_bytes of type uint64",
        ),
        (
            refused::<ContainerSpec>(r#"{"netout_rules":[{"networks":[{"start":"nope"}]}]}"#),
            "invalid IP address: nope",
        ),
        (
            refused::<StopRequest>(r#"{"kill":"yes"}"#),
            "json: cannot unmarshal string into Go struct field .kill of type bool",
        ),
        (
            refused::<Nanoseconds>(r#""5s""#),
            "json: cannot unmarshal string into Go value of type time.Duration",
        ),
        (
            refused::<Nanoseconds>("1.5"),
            "json: cannot unmarshal number 1.5 into Go value of type time.Duration",
        ),
        (
            refused::<PropertyValue>(r#""v""#),
            r#"json: cannot unmarshal string into Go value of type struct { Value string "json:\"value\"" }"#,
        ),
        (
            refused::<NetInRequest>(r#"{"host_port":-1}"#),
            "json: cannot unmarshal number -1 into Go struct field NetInRequest.host_port of type uint32",
        ),
        (
            refused::<NetOutRule>(r#"{"protocol":"tcp"}"#),
            "json: cannot unmarshal string into Go struct field NetOutRule.protocol of type garden.Protocol",
        ),
        (
            refused::<Vec<NetOutRule>>("{}"),
            "json: cannot unmarshal object into Go value of type []garden.NetOutRule",
        ),
        (
            refused::<ProcessSpec>(r#"{"rlimits":{"nofile":-5}}"#),
            "json: cannot unmarshal number -5 into Go struct field ResourceLimits.rlimits.nofile of type uint64",
        ),
    ];
    for (got, wanted) in table {
        assert_eq!(got, wanted);
    }
}

#[test]
fn reading_is_as_lenient_as_gos() {
    let spec: ContainerSpec =
        decode(br#"{"HANDLE":"b1","Properties":{"A":"b"},"no_such":{"x":[1]}} garbage"#).unwrap();
    assert_eq!(spec.handle, "b1");
    assert_eq!(spec.properties.get("A").map(String::as_str), Some("b"));
    let last: ContainerSpec = decode(br#"{"handle":"b7","handle":"b8"}"#).unwrap();
    assert_eq!(last.handle, "b8");
    let nulls: ContainerSpec =
        decode(br#"{"handle":null,"env":null,"properties":null,"netin":null,"limits":null}"#)
            .unwrap();
    assert_eq!(nulls, ContainerSpec::default());
    assert_eq!(decode::<ContainerSpec>(b"null").unwrap(), ContainerSpec::default());
    let error: WireError = decode(br#"{"Type":"NewError","Message":"m"}"#).unwrap();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Untyped, "m"));
}

#[test]
fn zero_and_absent_are_told_apart_in_frames() {
    let stdin: Payload = decode(br#"{"process_id":"p","source":0,"data":""}"#).unwrap();
    assert_eq!((stdin.source, stdin.data.as_deref()), (Some(Source::Stdin), Some("")));
    let eof: Payload = decode(br#"{"process_id":"p","source":0,"data":null}"#).unwrap();
    assert_eq!((eof.source, eof.data), (Some(Source::Stdin), None));
    let exit = Payload { process_id: "p".to_owned(), exit_status: Some(0), ..Payload::default() };
    assert_eq!(encode(&exit), b"{\"process_id\":\"p\",\"exit_status\":0}\n");
}

#[test]
fn recorded_values_keep_their_bytes() {
    fn same<T: serde::de::DeserializeOwned + serde::Serialize>(text: &str) {
        let value: T = decode(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(encode(&value)).unwrap().trim_end(), text);
    }
    same::<ContainerSpec>(
        r#"{"handle":"box","grace_time":300000000000,"image":{"uri":"docker:///busybox#1.36","username":"me","password":"secret"},"bind_mounts":[{"src_path":"/srv/share","dst_path":"/mnt/ro"},{"src_path":"/srv/share","dst_path":"/mnt/rw","mode":1}],"network":"10.253.0.10/24","properties":{"log_config":"{\"guid\":\"guid-1\",\"index\":0}","network.app_id":"guid-1","owner":"me"},"env":["A=1","B=two words","C=x=y","U=ü\u003c\u0026\u003e"],"limits":{"bandwidth_limits":{"rate":1000000,"burst":2000000},"cpu_limits":{"weight":512,"limit_in_shares":256},"disk_limits":{"inode_soft":1000,"inode_hard":2000,"byte_soft":104857600,"byte_hard":209715200,"scope":1},"memory_limits":{"limit_in_bytes":67108864},"pid_limits":{"max":100}},"netout_rules":[{"protocol":1,"networks":[{"start":"198.51.100.1","end":"198.51.100.9"}],"ports":[{"start":80,"end":81},{"start":443,"end":443}]},{"protocol":3,"networks":[{"start":"198.51.100.1"}],"icmps":{"type":8,"code":0},"log":true}],"netin":[{"host_port":0,"container_port":8080},{"host_port":60123,"container_port":8443},{"host_port":0,"container_port":0}]}"#,
    );
    same::<BulkInfo>(
        r#"{"no":{"Info":{"State":"","Events":null,"HostIP":"","ContainerIP":"","ContainerIPv6":"","ExternalIP":"","ContainerPath":"","ProcessIDs":null,"Properties":null,"MappedPorts":null},"Err":{"Type":"","Message":"unknown handle: no","Handle":"","ProcessID":"","Binary":""}}}"#,
    );
    same::<ContainerInfo>(
        r#"{"State":"active","Events":null,"HostIP":"10.254.0.1","ContainerIP":"10.254.0.2","ContainerIPv6":"","ExternalIP":"192.0.2.10","ContainerPath":"/var/run/gdn/depot/box","ProcessIDs":null,"Properties":{"k":"v"},"MappedPorts":[{"HostPort":60123,"ContainerPort":8080}]}"#,
    );
    same::<garden_api::Metrics>(
        r#"{"MemoryStat":{"active_anon":8192,"active_file":569344,"cache":753664,"hierarchical_memory_limit":67108864,"inactive_anon":40960,"inactive_file":184320,"mapped_file":548864,"pgfault":1593,"pgmajfault":2,"pgpgin":1364,"pgpgout":1157,"rss":94208,"total_active_anon":8192,"total_active_file":569344,"total_cache":753664,"total_inactive_anon":40960,"total_inactive_file":184320,"total_mapped_file":548864,"total_pgfault":1593,"total_pgmajfault":2,"total_pgpgin":1364,"total_pgpgout":1157,"total_rss":94208,"total_unevictable":0,"unevictable":0,"swap":0,"hierarchical_memsw_limit":67108864,"total_swap":0,"TotalUsageTowardLimit":663552,"anon":0,"file":0,"swapcached":0},"CPUStat":{"Usage":43739341,"User":20000000,"System":10000000},"DiskStat":{"TotalBytesUsed":4194304,"TotalInodesUsed":0,"ExclusiveBytesUsed":4096,"ExclusiveInodesUsed":0},"NetworkStat":null,"PidStat":{"Current":2,"Max":50},"Age":156290430,"CPUEntitlement":6639344}"#,
    );
}

#[test]
fn a_bulk_entry_is_a_value_or_an_error() {
    let bulk: BulkInfo = decode(br#"{"a":{"Info":{"State":"active"},"Err":null}}"#).unwrap();
    assert!(matches!(bulk.0.get("a"), Some(BulkEntry::Value(_))));
}
