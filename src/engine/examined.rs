//! What the doctor is told of a configuration.

use super::ceilings::{self, Wish};
use crate::config::{self, Configuration};
use crate::doctor::{Listener, Settings, Transport, Webhook};
use crate::webhook::settings::Endpoint;

/// The part of `configuration` that the doctor looks at.
#[must_use]
pub fn examined(configuration: &Configuration) -> Settings {
    let listener = |name, transport| move |address| Listener { name, transport, address };
    let mut listeners: Vec<Listener> =
        configuration.sip.listen.iter().copied().map(listener("sip", Transport::Udp)).collect();
    listeners.push(listener("api", Transport::Tcp)(configuration.api_listen));
    listeners.push(listener("admin", Transport::Tcp)(configuration.admin_listen));
    let webhook = |endpoint: &Endpoint| Webhook {
        application: endpoint.application.clone(),
        url: endpoint.url.clone(),
        secrets: endpoint.secrets.len(),
        allow_private: endpoint.allow_private,
    };
    Settings {
        warnings: config::warnings(configuration),
        data_dir: configuration.data_dir.clone(),
        listeners,
        workers: configuration.sip.workers,
        descriptors: Wish::of(configuration).total(),
        memory: ceilings::memory_needed(configuration),
        webhooks: configuration.webhooks.iter().map(webhook).collect(),
        certificates: Vec::new(),
    }
}
