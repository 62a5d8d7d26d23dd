//! The store on real databases: the same rows on SQLite and on a PostgreSQL of the test's own.

use std::sync::Arc;

use bytes::Bytes;
use eduham_collab::{
    document::Document,
    store::{MIGRATIONS, SqlStore, Store, Stored},
};
use eduham_platform::{
    db::{DatabaseUrl, Db},
    testing::PostgresCluster,
};
use yrs::{Doc, GetString, ReadTxn, StateVector, Text, Transact, Update, updates::decoder::Decode};

async fn open(url: &DatabaseUrl) -> SqlStore {
    SqlStore::new(Db::open(url, &MIGRATIONS).await.expect("the database opens"))
}

/// Runs a test on both databases.
async fn on_both<F: AsyncFn(&DatabaseUrl)>(test: F) {
    let directory = tempfile::tempdir().expect("a directory");
    test(&DatabaseUrl::sqlite(directory.path().join("collab.db"))).await;
    let cluster = PostgresCluster::start().await;
    test(&cluster.database().await).await;
}

/// A writer with an id of its own; each call gives the update for one more letter.
fn writer(id: u64) -> impl FnMut() -> Bytes {
    let doc = Doc::with_client_id(id);
    let text = doc.get_or_insert_text("t");
    move || {
        let mut transaction = doc.transact_mut();
        let end = text.len(&transaction);
        text.insert(&mut transaction, end, "x");
        transaction.encode_update_v1().into()
    }
}

fn text(stored: &Stored) -> String {
    let document = Document::new();
    for update in &stored.updates {
        document.apply(update).expect("stored updates are good");
    }
    let doc = Doc::new();
    let text = doc.get_or_insert_text("t");
    doc.transact_mut().apply_update(Update::decode_v1(&document.encode()).expect("good")).expect("applies");
    assert_ne!(doc.transact().encode_state_as_update_v1(&StateVector::default()).len(), 0);
    text.get_string(&doc.transact())
}

#[tokio::test]
async fn what_is_appended_is_loaded_by_the_next_process() {
    on_both(async |url| {
        let mut write = writer(1);
        let store = open(url).await;
        assert_eq!(store.load("a", 0).await.expect("loads"), Stored::default());
        assert_eq!(store.append("a", write()).await.expect("appends"), 1);
        assert_eq!(store.append("a", write()).await.expect("appends"), 2);
        assert_eq!(store.append("b", write()).await.expect("appends"), 1);
        drop(store);

        let store = open(url).await;
        let all = store.load("a", 0).await.expect("loads");
        assert_eq!((all.seq, all.updates.len(), text(&all).as_str()), (2, 2, "xx"));
        let rest = store.load("a", 1).await.expect("loads");
        assert_eq!((rest.seq, rest.updates.len()), (2, 1));
    })
    .await;
}

#[tokio::test]
async fn a_compacted_document_is_the_same_and_numbers_go_on() {
    on_both(async |url| {
        let mut write = writer(1);
        let store = open(url).await;
        assert!(!store.compact("a").await.expect("nothing to do"));
        for round in 1..=3 {
            for _ in 0..10 {
                store.append("a", write()).await.expect("appends");
            }
            assert!(store.compact("a").await.expect("compacts"));
            let all = store.load("a", 0).await.expect("loads");
            assert_eq!((all.seq, all.updates.len()), (10 * round, 1));
            assert_eq!(text(&all), "x".repeat(10 * round as usize));
            // Who has read up to here has nothing to load; who has not gets the snapshot.
            assert_eq!(store.load("a", all.seq).await.expect("loads").updates.len(), 0);
            assert_eq!(store.load("a", all.seq - 1).await.expect("loads").updates.len(), 1);
        }
        assert_eq!(store.append("a", write()).await.expect("appends"), 31);
        assert_eq!(text(&store.load("a", 0).await.expect("loads")).len(), 31);
    })
    .await;
}

#[tokio::test]
async fn nodes_that_write_and_compact_at_once_lose_nothing() {
    const WRITERS: u64 = 4;
    const EACH: usize = 25;
    on_both(async |url| {
        // Each writer is a node of its own, with its own connections.
        let mut nodes = Vec::new();
        for id in 1..=WRITERS {
            let (store, mut write) = (open(url).await, writer(id));
            nodes.push(tokio::spawn(async move {
                for _ in 0..EACH {
                    store.append("a", write()).await.expect("appends");
                }
            }));
        }
        let compactor = Arc::new(open(url).await);
        for node in 0..2 {
            let store = Arc::clone(&compactor);
            nodes.push(tokio::spawn(async move {
                for _ in 0..10 {
                    store.compact("a").await.unwrap_or_else(|error| panic!("compactor {node}: {error}"));
                    let seen = store.load("a", 0).await.expect("loads");
                    assert_eq!(text(&seen).len() as i64, seen.seq, "every number is one letter, compacted or not");
                }
            }));
        }
        for node in nodes {
            node.await.expect("no panic");
        }
        let all = compactor.load("a", 0).await.expect("loads");
        assert_eq!(all.seq, WRITERS as i64 * EACH as i64);
        assert_eq!(text(&all).len(), WRITERS as usize * EACH);
    })
    .await;
}
