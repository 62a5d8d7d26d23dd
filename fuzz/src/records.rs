//! What must hold for every file that the disk tier finds.

use bytes::Bytes;

use crate::{
    orders,
    record::{HEADER_BYTES, Head, Header, Kind},
};

/// A file holds `data`, of which the first byte says what it is read as: what is read is written as the same bytes.
pub fn records(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    match choice % 3 {
        0 => {
            if let Some(header) = Header::decode(data) {
                assert_eq!(header.encode(), data[..HEADER_BYTES]);
                if let Some((head, body)) = header.verify(data) {
                    assert_eq!(header.record_len() as usize, HEADER_BYTES + head.len() + body.len());
                }
            }
        }
        1 => {
            let bytes = Bytes::copy_from_slice(data);
            let header = Header::new(Kind::Head, 1, data, &[]).expect("an input is small");
            if let Some(head) = Head::decode(&header, &bytes) {
                assert_eq!(head.encode(), data);
                let parts: u64 = head.parts.iter().map(|part| u64::from(part.len)).sum();
                assert_eq!(head.stored_bytes(0), parts);
            }
        }
        _ => {
            let bytes = Bytes::copy_from_slice(data);
            if let Some(read) = orders::decode(&bytes) {
                let mut again = orders::encode_first(read.seed, read.floor).expect("it is small");
                for order in &read.orders {
                    again.extend(orders::encode_order(order).expect("an input is small"));
                    assert!(order.position <= read.position());
                }
                assert!(data.starts_with(&again) || again.len() == data.len());
            }
        }
    }
}
