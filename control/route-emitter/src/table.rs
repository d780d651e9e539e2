//! What routers should know: desired LRPs with their routes, and the instances that run.

use std::collections::{BTreeMap, HashMap, HashSet};

use bbs_models::actual_lrp::Presence;
use bbs_models::actual_lrp_net_info::PreferredAddress;
use bbs_models::metric_tag_value::DynamicValue;
use bbs_models::{
    ActualLRP, ActualLRPInfo, ActualLRPInstanceKey, ActualLRPKey, DesiredLRP, Event, state,
};

use crate::config::Config;
use crate::message::{Audience, Identity, Message, Notice, Verb};
use crate::routes::{self, HttpRoute};

/// The table of one emitter. What it returns is what routers have to be told of a change.
#[derive(Debug)]
pub struct Table {
    direct: bool,
    internal: bool,
    processes: HashMap<String, Process>,
    instances: HashMap<InstanceId, Instance>,
    /// By process: what routers have been told.
    told: HashMap<String, HashMap<Identity, Message>>,
}

/// An instance that leaves its cell is there twice for a while.
type InstanceId = (String, bool);

#[derive(Clone, Debug)]
struct Process {
    domain: String,
    count: i32,
    log_guid: String,
    http: Vec<HttpRoute>,
    internal: Vec<String>,
    tags: BTreeMap<String, bbs_models::MetricTagValue>,
}

#[derive(Clone, Debug)]
struct Instance {
    process_guid: String,
    index: i32,
    guid: String,
    net_info: bbs_models::ActualLRPNetInfo,
    since: i64,
    zone: String,
}

impl Table {
    /// Empty.
    pub fn new(config: &Config) -> Self {
        Self {
            direct: config.register_direct_instance_routes,
            internal: config.enable_internal_emitter,
            processes: HashMap::new(),
            instances: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// Whether a process's routes are known.
    pub fn knows(&self, process_guid: &str) -> bool {
        self.processes.contains_key(process_guid)
    }

    /// Takes the BBS's lists. What is missing in them is gone, but for processes of domains that are not
    /// fresh: of those nobody has said lately what is wanted.
    pub fn sync(
        &mut self,
        actual: &[ActualLRP],
        desired: &[DesiredLRP],
        fresh: &[String],
    ) -> Vec<Notice> {
        let mut processes: HashMap<_, _> =
            desired.iter().map(|lrp| (lrp.process_guid.clone(), Process::of(lrp))).collect();
        let mut instances = HashMap::new();
        for lrp in actual.iter().filter(|lrp| is_routed(&lrp.state, lrp.routable)) {
            let (id, instance) =
                Instance::of(&lrp.actual_lrp_key, &lrp.actual_lrp_instance_key, &lrp.info());
            instances.insert(id, instance);
        }
        for (guid, process) in self.processes.drain() {
            if !fresh.contains(&process.domain) && !processes.contains_key(&guid) {
                processes.insert(guid, process);
            }
        }
        for (id, instance) in self.instances.drain() {
            let kept = processes.get(&instance.process_guid);
            if kept.is_some_and(|process| !fresh.contains(&process.domain)) {
                instances.entry(id).or_insert(instance);
            }
        }
        (self.processes, self.instances) = (processes, instances);
        let mut guids: HashSet<String> = self.told.keys().cloned().collect();
        guids.extend(self.processes.keys().cloned());
        guids.iter().flat_map(|guid| self.tell(guid, None)).collect()
    }

    /// Takes an event. Events of tasks and the like change nothing.
    pub fn apply(&mut self, event: &Event) -> Vec<Notice> {
        match event {
            Event::DesiredLRPCreated(created) => self.desire(&created.desired_lrp),
            Event::DesiredLRPChanged(changed) => self.desire(&changed.after),
            Event::DesiredLRPRemoved(removed) => {
                let guid = &removed.desired_lrp.process_guid;
                self.processes.remove(guid);
                self.tell(guid, None)
            }
            Event::ActualLRPInstanceCreated(created) => {
                let lrp = &created.actual_lrp;
                self.instance(&lrp.actual_lrp_key, &lrp.actual_lrp_instance_key, &lrp.info(), None)
            }
            Event::ActualLRPInstanceChanged(changed) => {
                let (key, instance_key) =
                    (&changed.actual_lrp_key, &changed.actual_lrp_instance_key);
                self.instance(key, instance_key, &changed.after, Some(&changed.before))
            }
            Event::ActualLRPInstanceRemoved(removed) => {
                let lrp = &removed.actual_lrp;
                let (id, instance) =
                    Instance::of(&lrp.actual_lrp_key, &lrp.actual_lrp_instance_key, &lrp.info());
                self.instances.remove(&id);
                self.tell(&instance.process_guid, None)
            }
            _ => Vec::new(),
        }
    }

    /// The process of which an event's instance is, if there may be routes for it.
    pub fn process_of(event: &Event) -> Option<&str> {
        let (key, state, routable) = match event {
            Event::ActualLRPInstanceCreated(created) => {
                let lrp = &created.actual_lrp;
                (&lrp.actual_lrp_key, &lrp.state, lrp.routable)
            }
            Event::ActualLRPInstanceChanged(changed) => {
                (&changed.actual_lrp_key, &changed.after.state, changed.after.routable)
            }
            _ => return None,
        };
        is_routed(state, routable).then_some(&key.process_guid)
    }

    /// Takes what is desired.
    pub fn desire(&mut self, lrp: &DesiredLRP) -> Vec<Notice> {
        self.processes.insert(lrp.process_guid.clone(), Process::of(lrp));
        self.tell(&lrp.process_guid, None)
    }

    /// All that is to be repeated to one audience.
    pub fn registrations(&self, audience: Audience) -> impl Iterator<Item = Notice> {
        self.told.values().flatten().filter(move |((to, ..), _)| *to == audience).map(
            move |(_, message)| Notice { audience, verb: Verb::Register, message: message.clone() },
        )
    }

    fn instance(
        &mut self,
        key: &ActualLRPKey,
        instance_key: &ActualLRPInstanceKey,
        now: &ActualLRPInfo,
        before: Option<&ActualLRPInfo>,
    ) -> Vec<Notice> {
        let (id, instance) = Instance::of(key, instance_key, now);
        if let Some(before) = before {
            let (was, _) = Instance::of(key, instance_key, before);
            self.instances.remove(&was);
        }
        let guid = instance.process_guid.clone();
        let since = instance.since;
        if is_routed(&now.state, now.routable) {
            self.instances.insert(id, instance);
        } else {
            self.instances.remove(&id);
        }
        self.tell(&guid, Some((&instance_key.instance_guid, since)))
    }

    /// What is different from what routers have been told of a process. What an instance's own event has
    /// changed carries the time of that.
    fn tell(&mut self, process_guid: &str, changed: Option<(&str, i64)>) -> Vec<Notice> {
        let now = self.messages(process_guid);
        let mut told = self.told.remove(process_guid).unwrap_or_default();
        let mut notices = Vec::new();
        for (identity, message) in &now {
            if told.remove(identity).as_ref() == Some(message) {
                continue;
            }
            let mut message = message.clone();
            let index = changed.and_then(|(guid, since)| {
                let instance = self.instances.values().find(|instance| instance.guid == guid)?;
                Some((instance.index.to_string(), since))
            });
            if let Some((index, since)) = index
                && message.private_instance_index == index
            {
                message.endpoint_updated_at_ns = since;
            }
            notices.push(Notice { audience: identity.0, verb: Verb::Register, message });
        }
        notices.extend(told.into_iter().map(|((audience, ..), message)| Notice {
            audience,
            verb: Verb::Unregister,
            message,
        }));
        if !now.is_empty() {
            self.told.insert(process_guid.to_owned(), now);
        }
        notices
    }

    fn messages(&self, process_guid: &str) -> HashMap<Identity, Message> {
        let Some(process) = self.processes.get(process_guid) else { return HashMap::new() };
        let mut messages = HashMap::new();
        let mut add = |audience, message: Message| {
            messages.insert(message.identity(audience), message);
        };
        let of_process = |instance: &&Instance| {
            instance.process_guid == process_guid && instance.index < process.count
        };
        for instance in self.instances.values().filter(of_process) {
            let tags = process.tags_of(instance);
            for route in &process.http {
                let Some((host, port, tls_port)) = self.address(instance, route.port) else {
                    continue;
                };
                for hostname in &route.hostnames {
                    add(
                        Audience::Router,
                        Message {
                            host: host.to_owned(),
                            port,
                            tls_port,
                            uris: vec![hostname.clone()],
                            protocol: route.protocol.clone(),
                            app: process.log_guid.clone(),
                            route_service_url: route.route_service_url.clone(),
                            private_instance_id: instance.guid.clone(),
                            private_instance_index: instance.index.to_string(),
                            server_cert_domain_san: instance.guid.clone(),
                            isolation_segment: route.isolation_segment.clone(),
                            endpoint_updated_at_ns: 0,
                            tags: tags.clone(),
                            availability_zone: instance.zone.clone(),
                            options: route.options.clone(),
                        },
                    );
                }
            }
            for hostname in process.internal.iter().filter(|_| self.internal) {
                add(
                    Audience::ServiceDiscovery,
                    Message {
                        host: instance.net_info.instance_address.clone(),
                        uris: vec![hostname.clone(), format!("{}.{hostname}", instance.index)],
                        app: process.log_guid.clone(),
                        private_instance_index: instance.index.to_string(),
                        tags: [component()].into(),
                        ..Message::default()
                    },
                );
            }
        }
        messages
    }

    /// Where a port of the container is reached, plainly and with TLS.
    fn address<'a>(&self, instance: &'a Instance, port: u32) -> Option<(&'a str, u32, u32)> {
        let net_info = &instance.net_info;
        let ports = net_info.ports.iter().find(|mapping| mapping.container_port == port)?;
        let is_direct = match net_info.preferred_address.as_known() {
            Some(PreferredAddress::INSTANCE) => true,
            Some(PreferredAddress::HOST) => false,
            Some(PreferredAddress::UNKNOWN) | None => self.direct,
        };
        Some(if is_direct {
            (&net_info.instance_address, port, ports.container_tls_proxy_port)
        } else {
            (&net_info.address, ports.host_port, ports.host_tls_proxy_port)
        })
    }
}

impl Process {
    fn of(lrp: &DesiredLRP) -> Self {
        Self {
            domain: lrp.domain.clone(),
            count: lrp.instances,
            log_guid: lrp.log_guid.clone(),
            http: routes::http(lrp),
            internal: routes::internal(lrp),
            tags: lrp.metric_tags.clone(),
        }
    }

    fn tags_of(&self, instance: &Instance) -> BTreeMap<String, String> {
        let tags = self.tags.iter().map(|(name, tag)| {
            let value = match tag.dynamic.as_known() {
                Some(DynamicValue::INDEX) => instance.index.to_string(),
                Some(DynamicValue::INSTANCE_GUID) => instance.guid.clone(),
                _ => tag.r#static.clone(),
            };
            (name.clone(), value)
        });
        tags.chain([component()]).collect()
    }
}

impl Instance {
    fn of(
        key: &ActualLRPKey,
        instance_key: &ActualLRPInstanceKey,
        info: &ActualLRPInfo,
    ) -> (InstanceId, Self) {
        let guid = instance_key.instance_guid.clone();
        let is_leaving = info.presence.as_known() == Some(Presence::EVACUATING);
        let instance = Self {
            process_guid: key.process_guid.clone(),
            index: key.index,
            guid: guid.clone(),
            net_info: (*info.actual_lrp_net_info).clone(),
            since: info.since,
            zone: info.availability_zone.clone(),
        };
        ((guid, is_leaving), instance)
    }
}

/// Those on cells that are suspected to be gone stay.
fn is_routed(state: &str, routable: Option<bool>) -> bool {
    state == state::RUNNING && routable != Some(false)
}

fn component() -> (String, String) {
    ("component".to_owned(), "route-emitter".to_owned())
}
