//! What the doctor is told of a configuration.

use super::ceilings::{self, Wish};
use super::clock;
use crate::api::settings::TlsFiles;
use crate::config::{self, Configuration, SipListener, SipTransport};
use crate::doctor::{CertificateFiles, Listener, Settings, Transport, Webhook};
use crate::webhook::settings::Endpoint;

fn certificate(files: &TlsFiles) -> CertificateFiles {
    let TlsFiles { cert, key, directory, identity: _ } = files;
    CertificateFiles { name: "api", certificate: directory.join(cert), key: directory.join(key) }
}

/// The part of `configuration` that the doctor looks at.
#[must_use]
pub fn examined(configuration: &Configuration) -> Settings {
    let listener = |name, transport, address| Listener { name, transport, address };
    let sip = |one: &SipListener| match one.transport {
        SipTransport::Udp => listener("sip", Transport::Udp, one.address),
        SipTransport::Tcp => listener("sip", Transport::Tcp, one.address),
    };
    let mut listeners: Vec<Listener> = configuration.sip.listen.iter().map(sip).collect();
    listeners.push(listener("api", Transport::Tcp, configuration.api_listen));
    listeners.push(listener("admin", Transport::Tcp, configuration.admin_listen));
    let webhook = |endpoint: &Endpoint| Webhook {
        application: endpoint.application.clone(),
        url: endpoint.url.clone(),
        secrets: endpoint.secrets.len(),
        allow_private: endpoint.allow_private,
    };
    Settings {
        warnings: config::warnings(configuration, clock::utc()),
        data_dir: configuration.data_dir.clone(),
        listeners,
        workers: configuration.sip.workers,
        descriptors: Wish::of(configuration).total(),
        memory: ceilings::memory_needed(configuration),
        webhooks: configuration.webhooks.iter().map(webhook).collect(),
        certificates: configuration.api.tls.iter().map(certificate).collect(),
    }
}
