//! A desired LRP as the board holds it: encoded, with what placement and convergence read beside.
//!
//! A desired LRP is read far more often by convergence and by lists than it is changed. So it is
//! kept as the bytes that lists send, and decoded when it is changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bbs_models::desired_lrp::UpdateStrategy;
use bbs_models::metric_tag_value::DynamicValue;
use bbs_models::{
    ActualLRPInternalRoute, ActualLRPKey, DecodeError, DesiredLRP, Message, MetricTagValue,
    ProtoRoutes,
};
use bytes::Bytes;

/// The route group whose names containers answer to inside.
const INTERNAL_ROUTER: &str = "internal-router";

/// One desired LRP.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Its guid.
    pub process_guid: Arc<str>,
    /// Its domain.
    pub domain: Arc<str>,
    /// How many instances are wanted.
    pub instances: i32,
    /// It must never run twice at one index.
    pub recreate: bool,
    /// What a cell must have for it.
    pub placement: Placement,
    /// The names its instances answer to.
    pub internal_routes: Vec<String>,
    /// The tags of its instances.
    pub metric_tags: BTreeMap<String, MetricTagValue>,
    /// The complete record.
    encoded: Bytes,
    /// What placement needs to know of it: clients list this of all every minute or so.
    scheduling_info: Bytes,
}

/// What a cell must have to run an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The root file system's URL.
    pub root_fs: String,
    /// Megabytes.
    pub memory_mb: i32,
    /// Megabytes.
    pub disk_mb: i32,
    /// Processes; 0 is no limit.
    pub max_pids: i32,
    /// Tags of the cell.
    pub placement_tags: Vec<String>,
    /// Drivers of the cell.
    pub volume_drivers: Vec<String>,
}

impl Desired {
    /// Takes a desired LRP apart.
    pub fn new(lrp: &DesiredLRP) -> Self {
        Self::with_bytes(lrp, lrp.encode_to_bytes())
    }

    /// From [`Desired::encoded`].
    pub fn decode(encoded: Bytes) -> Result<Self, DecodeError> {
        Ok(Self::with_bytes(&DesiredLRP::decode_from_slice(&encoded)?, encoded))
    }

    fn with_bytes(lrp: &DesiredLRP, encoded: Bytes) -> Self {
        Self {
            process_guid: lrp.process_guid.as_str().into(),
            domain: lrp.domain.as_str().into(),
            instances: lrp.instances,
            recreate: lrp.update_strategy == UpdateStrategy::RECREATE,
            placement: Placement {
                root_fs: lrp.root_fs.clone(),
                memory_mb: lrp.memory_mb,
                disk_mb: lrp.disk_mb,
                max_pids: lrp.max_pids,
                placement_tags: lrp.placement_tags.clone(),
                volume_drivers: lrp.volume_drivers(),
            },
            internal_routes: internal_routes(&lrp.routes),
            metric_tags: lrp.metric_tags.clone(),
            scheduling_info: lrp.scheduling_info().encode_to_bytes(),
            encoded,
        }
    }

    /// The complete record's bytes.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The bytes of what placement needs to know of it.
    pub fn scheduling_info(&self) -> &Bytes {
        &self.scheduling_info
    }

    /// The complete record. It was encoded here, so it is readable.
    pub fn lrp(&self) -> DesiredLRP {
        DesiredLRP::decode_from_slice(&self.encoded).unwrap_or_default()
    }

    /// The key of one of its instances.
    pub fn key(&self, index: i32) -> ActualLRPKey {
        ActualLRPKey::new(&*self.process_guid, index, &*self.domain)
    }

    /// The internal routes as an instance carries them.
    pub fn routes_of_instance(&self) -> Vec<ActualLRPInternalRoute> {
        let route = |hostname: &String| ActualLRPInternalRoute {
            hostname: hostname.clone(),
            ..Default::default()
        };
        self.internal_routes.iter().map(route).collect()
    }

    /// The tags of one instance, with what is different in each filled in.
    pub fn tags_of_instance(&self, index: i32, instance_guid: &str) -> BTreeMap<String, String> {
        let value = |tag: &MetricTagValue| match tag.dynamic.as_known() {
            Some(DynamicValue::INDEX) => index.to_string(),
            Some(DynamicValue::INSTANCE_GUID) => instance_guid.to_owned(),
            _ => tag.r#static.clone(),
        };
        self.metric_tags.iter().map(|(name, tag)| (name.clone(), value(tag))).collect()
    }
}

/// The host names of the internal router's group. A group that is not what it should be has none:
/// nobody checks routes when they are desired.
fn internal_routes(routes: &ProtoRoutes) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Route {
        hostname: String,
    }
    let Some(value) = routes.routes.get(INTERNAL_ROUTER) else { return Vec::new() };
    let routes: Vec<Route> = serde_json::from_slice(value).unwrap_or_default();
    routes.into_iter().map(|route| route.hostname).collect()
}
