//! The vocabulary itself: an edge answers, keeps, and is told about.

use crate::support::{Gate, cacheable, edge, get, origin};

#[tokio::test]
async fn a_second_reader_is_served_from_the_store() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello"));
    let edge = edge(&origin).start().await;
    let first = edge.get("/a").await;
    assert_eq!((first.status, first.text()), (200, "hello"));
    let second = edge.get("/a").await;
    assert_eq!((second.text(), origin.hits("/a")), ("hello", 1));
    assert!(second.is_hit(), "{second:?}");
    assert_eq!((edge.results("miss"), edge.results("hit")), (1, 1));
}

#[tokio::test]
async fn a_connection_carries_one_request_after_the_other_also_while_the_origin_is_held() {
    let origin = origin().await;
    let gate = Gate::closed();
    origin.serve("/slow", cacheable("slow").held(&gate));
    let edge = edge(&origin).start().await;
    let mut connection = edge.connect().await;
    connection.send(&get("/slow")).await;
    gate.reached_by(1).await;
    gate.open();
    assert_eq!(connection.answer("GET").await.text(), "slow");
    assert_eq!(connection.ask(&get("/none")).await.status, 404);
}

#[tokio::test]
async fn http_2_and_purge_and_records_are_in_reach() {
    let origin = origin().await;
    origin.serve("/a", cacheable("hello"));
    let edge = edge(&origin).logged().start().await;
    let http2 = edge.http2().await;
    assert_eq!(http2.ask(&get("/a")).await.text(), "hello");
    let receipt = edge.purge(r#"{"all":true}"#).await;
    assert_eq!(receipt["matched"], 1, "{receipt}");
    assert_eq!(http2.ask(&get("/a")).await.text(), "hello");
    assert_eq!(origin.hits("/a"), 2);
    drop(http2);
    let records = edge.records().await;
    assert_eq!(records.len(), 2, "{records:?}");
    assert_eq!(records[0]["protocol"], "HTTP/2");
}
