//! What the control listener asks about purges: a request becomes an order, what came of it a receipt.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Control;
use crate::{
    admin::{
        self, FleetView, NodeView, PurgeNodes, PurgeReceipt, PurgeRefusal, PurgeRequest, PurgeUrl, PurgeView,
        Unreachable,
    },
    fleet::{Acknowledged, Issued, MemberState, Order, Record, Url},
    proxy::{purge::normal_url, target::BadTarget},
    store::Effort,
};

impl admin::Purge for Control {
    fn purge(&self, request: PurgeRequest, token: String) -> BoxFuture<'_, Result<PurgeReceipt, PurgeRefusal>> {
        Box::pin(async move {
            let wait = request.wait.then_some(request.timeout);
            let dry_run = request.dry_run;
            let order = order(request)?;
            let edge = Arc::clone(&self.edge);
            if dry_run {
                let counted = edge.count(&order, Effort::Thorough).await;
                return Ok(PurgeReceipt {
                    id: "dry-run".to_owned(),
                    position: None,
                    matched: counted.map(|counted| counted.matched),
                    bytes: counted.map(|counted| counted.bytes),
                    complete: false,
                    nodes: PurgeNodes { acknowledged: 0, ..nodes(edge.fleet.acknowledged_here()) },
                    fleet: None,
                });
            }
            let receipt = edge.purge(order, wait, token).await;
            let receipt = receipt.map_err(|error| PurgeRefusal::Failed { reason: error.to_string() })?;
            Ok(PurgeReceipt {
                position: receipt.position(),
                id: receipt.id,
                matched: receipt.counted.map(|counted| counted.matched),
                bytes: receipt.counted.map(|counted| counted.bytes),
                complete: receipt.acknowledged.complete,
                nodes: nodes(receipt.acknowledged),
                fleet: (receipt.issued == Issued::Unreachable).then_some(Unreachable::Unreachable),
            })
        })
    }

    fn purges(&self) -> Vec<PurgeView> {
        self.edge.fleet.history().list().into_iter().map(view).collect()
    }

    fn find(&self, id: String) -> BoxFuture<'_, Option<PurgeView>> {
        Box::pin(async move {
            let fleet = &self.edge.fleet;
            let record = fleet.history().find(&id)?;
            let acknowledged = match record.position {
                Some(n) => fleet.acknowledged_now(n).await,
                None if fleet.is_alone() => fleet.acknowledged_here(),
                None => Acknowledged { complete: false, ..fleet.acknowledged_here() },
            };
            Some(PurgeView { complete: Some(acknowledged.complete), nodes: Some(nodes(acknowledged)), ..view(record) })
        })
    }

    fn fleet(&self) -> BoxFuture<'_, FleetView> {
        Box::pin(async move {
            let fleet = &self.edge.fleet;
            let position = fleet.position();
            let Some(members) = fleet.members().await else {
                let card = fleet.card();
                let own = NodeView {
                    id: card.id.clone(),
                    region: card.region.clone(),
                    config: card.config.clone(),
                    state: "live",
                    position: Some(position),
                    lag: Some(0),
                    silent_ms: 0,
                };
                return FleetView { connected: fleet.is_connected(), position, nodes: vec![own] };
            };
            let last = members.all.iter().filter_map(|member| member.position).max().unwrap_or(position).max(position);
            let nodes = members.all.into_iter().map(|member| NodeView {
                id: member.card.id,
                region: member.card.region,
                config: member.card.config,
                state: match member.state {
                    MemberState::Live => "live",
                    MemberState::Lost => "lost",
                },
                position: member.position,
                lag: member.position.map(|position| last.saturating_sub(position)),
                silent_ms: u64::try_from(member.silent.as_millis()).unwrap_or(u64::MAX),
            });
            FleetView { connected: fleet.is_connected(), position, nodes: nodes.collect() }
        })
    }
}

fn order(request: PurgeRequest) -> Result<Order, PurgeRefusal> {
    let normal = |urls: Vec<PurgeUrl>, refusal: fn(usize, BadTarget) -> PurgeRefusal| {
        let urls = urls.into_iter().enumerate().map(|(index, url)| {
            let written = match url.query {
                Some(query) => format!("{}?{query}", url.path),
                None => url.path,
            };
            normal_url(url.host, url.port, &written).map_err(|error| refusal(index, error))
        });
        urls.collect::<Result<Vec<_>, _>>()
    };
    Ok(Order {
        urls: normal(request.urls, |index, error| PurgeRefusal::Url { index, reason: error.to_string() })?,
        prefixes: normal(request.prefixes, |index, error| PurgeRefusal::Prefix { index, reason: error.to_string() })?,
        surrogate_keys: request.surrogate_keys,
        groups: Vec::new(),
        hosts: request.hosts,
        all: request.all,
        soft: request.soft,
        ignore_query: request.ignore_query,
        by_client: false,
    })
}

fn nodes(acknowledged: Acknowledged) -> PurgeNodes {
    let count = |nodes| u32::try_from(nodes).unwrap_or(u32::MAX);
    PurgeNodes {
        live: count(acknowledged.live),
        acknowledged: count(acknowledged.acknowledged),
        lost: acknowledged.lost,
    }
}

fn view(record: Record) -> PurgeView {
    let Record { id, node, at, order, position, counted } = record;
    let written = |urls: Vec<Url>| {
        urls.into_iter()
            .map(|url| match url.port {
                Some(port) => format!("{}:{port}{}", url.host, url.target),
                None => format!("{}{}", url.host, url.target),
            })
            .collect()
    };
    PurgeView {
        id,
        node,
        at,
        position,
        urls: written(order.urls),
        surrogate_keys: order.surrogate_keys,
        prefixes: written(order.prefixes),
        hosts: order.hosts,
        all: order.all,
        soft: order.soft,
        ignore_query: order.ignore_query,
        matched: counted.map(|(matched, _)| matched),
        bytes: counted.map(|(_, bytes)| bytes),
        complete: None,
        nodes: None,
    }
}
