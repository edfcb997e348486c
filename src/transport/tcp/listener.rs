//! Opening a listener and accepting its connections.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::sip::flow::{Flow, Transport};
use crate::transport::TransportError;

/// Connections that the kernel holds until they are accepted; it cuts the number to `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;
/// Silence after which the kernel asks whether the peer's machine is still there, how often it asks, and in what
/// distance: a peer that is gone is known within two minutes.
const KEEPALIVE: (Duration, u32, Duration) = (Duration::from_mins(1), 4, Duration::from_secs(15));
/// How long sent bytes may stay unacknowledged, or a peer's window closed, before the kernel gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait before the next try when the system has no descriptor or memory for a connection.
const PAUSE: Duration = Duration::from_millis(200);

/// A listener that is bound and not yet watched by a runtime. Peers can connect already and wait.
#[derive(Debug)]
pub struct BoundListener {
    listener: StdListener,
    local: SocketAddr,
}

/// A listener that is watched by the runtime in which [`BoundListener::register`] was called.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    local: SocketAddr,
}

/// Opens a listener on `listen`. With port 0 the system picks a port; `[::]` takes IPv4 as well.
///
/// # Errors
/// A [`TransportError`] with the address; the operator must act.
pub fn open(listen: SocketAddr) -> Result<BoundListener, TransportError> {
    let mut address = SocketAddr::new(listen.ip().to_canonical(), listen.port());
    if let (SocketAddr::V6(address), SocketAddr::V6(listen)) = (&mut address, listen) {
        address.set_scope_id(listen.scope_id());
    }
    let transport = Transport::Tcp;
    let create = |source| TransportError::Create { transport, address, source };
    let refused = |option| move |source| TransportError::Option { transport, address, option, source };
    let taken = |source| TransportError::Bind { transport, address, source };

    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(create)?;
    socket.set_nonblocking(true).map_err(create)?;
    if address.is_ipv6() {
        let alone = !address.ip().is_unspecified();
        socket.set_only_v6(alone).map_err(refused("IPV6_V6ONLY"))?;
    }
    // After a stop the old connections hold the port for a minute; a second program cannot listen beside us by it.
    socket.set_reuse_address(true).map_err(refused("SO_REUSEADDR"))?;
    // Connections inherit these, which saves four system calls for each. They work without, only less well.
    let (time, retries, interval) = KEEPALIVE;
    let _ = socket.set_tcp_nodelay(true);
    let _ =
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_retries(retries).with_interval(interval));
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    socket.bind(&address.into()).map_err(taken)?;
    socket.listen(BACKLOG).map_err(taken)?;
    let listener = StdListener::from(socket);
    let local = listener.local_addr().map_err(taken)?;
    Ok(BoundListener { listener, local })
}

impl BoundListener {
    /// The bound address, with the port that the system picked where port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Has the runtime of the calling thread watch the listener.
    ///
    /// # Errors
    /// `TransportError::Register`.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn register(self) -> Result<Listener, TransportError> {
        let (transport, address) = (Transport::Tcp, self.local);
        let inner = TcpListener::from_std(self.listener).map_err(|source| TransportError::Register {
            transport,
            address,
            source,
        })?;
        Ok(Listener { inner, local: address })
    }
}

impl Listener {
    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits for the next connection and gives it with its way, addresses in their plain form. Where the system has
    /// no descriptor or memory for it, `failed` is told and it is tried again after a pause; the connection waits in
    /// the kernel meanwhile.
    pub async fn accept(&self, mut failed: impl FnMut(&io::Error)) -> (TcpStream, Flow) {
        loop {
            match self.inner.accept().await {
                Ok((stream, remote)) => {
                    let local = stream.local_addr().unwrap_or(self.local);
                    let flow = Flow { transport: Transport::Tcp, local: plain(local), remote: plain(remote) };
                    return (stream, flow);
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    failed(&error);
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Whether the error is that of a connection which broke before it was accepted (accept(2)), not of the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ECONNRESET
                | libc::ETIMEDOUT
        )
    )
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
