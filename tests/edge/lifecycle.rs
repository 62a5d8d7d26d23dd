//! How an edge leaves: what it still serves, whom it tells, and what it does not wait for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{Connection, Edge, Gate, edge, get, origin, page, within};

#[tokio::test]
async fn during_the_delay_who_comes_is_served_and_told_to_close() {
    let origin = origin().await;
    origin.serve("/a", page("a"));
    let edge = edge(&origin).server("drain: { delay: 2s }").start().await;
    let address = edge.address;
    let mut kept = edge.connect().await;
    assert_eq!(kept.ask(&get("/a")).await.field("connection"), None);
    let readiness = Arc::clone(edge.running.readiness());
    let mut draining = edge.running.edge().draining.subscribe();
    let Edge { running, .. } = edge;
    let drained = tokio::spawn(running.drain(std::future::pending()));
    within(draining.wait_for(|draining| *draining)).await.expect("it drains");
    assert!(readiness.is_draining(), "balancers are told to look away");
    for mut connection in [kept, Connection::open(address).await] {
        let answer = connection.ask(&get("/a")).await;
        assert_eq!((answer.text(), answer.field("connection").as_deref()), ("a", Some("close")));
    }
    within(drained).await.expect("it ends");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn who_is_being_served_is_waited_for_until_the_deadline() {
    for (deadline, is_served) in [("30s", true), ("200ms", false)] {
        let origin = origin().await;
        let gate = Gate::closed();
        origin.serve("/held", page("held").held(&gate));
        let edge = edge(&origin).uncached().server(&format!("drain: {{ deadline: {deadline} }}")).start().await;
        let mut busy = edge.connect().await;
        busy.send(&get("/held")).await;
        gate.reached_by(1).await;
        let Edge { running, .. } = edge;
        let drained = tokio::spawn(running.drain(std::future::pending()));
        if is_served {
            gate.open();
        }
        let answer = busy.answer("GET").await;
        assert_eq!((answer.status == 200, answer.cut), (is_served, !is_served), "{deadline}");
        within(drained).await.expect("it ends");
    }
}

#[tokio::test]
async fn what_waits_to_be_accepted_is_answered_before_the_listener_closes() {
    let origin = origin().await;
    origin.serve("/a", page("a"));
    let edge = edge(&origin).start().await;
    // The kernel accepts for the edge, whose only thread is this one.
    let waiting: Vec<std::net::TcpStream> = (0..64)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(edge.address).expect("the edge listens");
            std::io::Write::write_all(&mut stream, b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("it is taken");
            stream.set_nonblocking(true).expect("a socket");
            stream
        })
        .collect();
    let Edge { running, .. } = edge;
    let drained = tokio::spawn(running.drain(std::future::pending()));
    for stream in waiting {
        let mut connection = Connection::over(tokio::net::TcpStream::from_std(stream).expect("a socket"));
        let answer = connection.answer("GET").await;
        assert_eq!((answer.status, answer.field("connection").as_deref()), (200, Some("close")), "{answer:?}");
    }
    within(drained).await.expect("it ends");
}

#[tokio::test]
async fn a_drain_that_is_hurried_ends_at_once() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/held", page("held").held(&gate));
    let edge = edge(&origin).server("drain: { delay: 1h, deadline: 1h }").start().await;
    let mut busy = edge.connect().await;
    busy.send(&get("/held")).await;
    gate.reached_by(1).await;
    let hurry = Gate::closed();
    let hurried = hurry.clone();
    let Edge { running, .. } = edge;
    let drained = tokio::spawn(running.drain(async move { hurried.pass().await }));
    hurry.reached_by(1).await;
    let begun = Instant::now();
    hurry.open();
    within(drained).await.expect("it ends");
    assert!(busy.answer("GET").await.cut);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_of_a_busy_client_is_lost_when_the_edge_leaves() {
    let origin = origin().await;
    origin.serve("/a", page("a").field("Cache-Control", "max-age=60"));
    let edge = edge(&origin).start().await;
    let address = edge.address;
    let (leaving, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients = (0..16).map(|number| {
        let (leaving, answered) = (Arc::clone(&leaving), Arc::clone(&answered));
        tokio::spawn(async move {
            loop {
                let Ok(stream) = tokio::net::TcpStream::connect(address).await else {
                    assert!(leaving.load(Ordering::SeqCst), "refused before the edge leaves");
                    return;
                };
                let mut connection = Connection::over(stream);
                loop {
                    let answer = connection.ask(&get("/a")).await;
                    assert!(!answer.cut && answer.text() == "a", "client {number}: {answer:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                    if answer.field("connection").is_some() {
                        break;
                    }
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    while answered.load(Ordering::Relaxed) < 500 {
        tokio::task::yield_now().await;
    }
    leaving.store(true, Ordering::SeqCst);
    let Edge { running, .. } = edge;
    within(running.drain(std::future::pending())).await;
    for client in clients {
        within(client).await.expect("no request of this client failed");
    }
}
