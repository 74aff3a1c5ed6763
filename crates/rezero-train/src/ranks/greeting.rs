//! The first words of ranks to each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Ranks, mpi};
use crate::error::{Error, Result};
use crate::record::checkpoint::BURN_VERSION;
use crate::say;

/// What ranks tell each other first.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Greeting {
    host: String,
    node: usize,
    same: BTreeMap<String, String>,
}

impl Ranks {
    /// The processes that MPI finds, which must be `number`.
    pub(super) fn begin(
        variable: &str,
        number: usize,
        patience: Duration,
        same: &[(&str, String)],
    ) -> Result<Self> {
        let (link, place) = mpi::Port::open(patience)?;
        if place.size != number {
            return Err(Error::Ranks(format!(
                "{variable}={number}, and MPI finds {} process{}: its launcher is not the one of the MPI library that \
                 this program is linked with; start it by that library's own mpirun, or by srun --mpi=pmix or \
                 --mpi=pmi2 (docs/CLUSTERS.md)",
                place.size,
                if place.size == 1 { ", this one" } else { "es" }
            )));
        }
        // One process speaks for all.
        say::be_silent(place.rank > 0);
        let mut ranks = Self {
            rank: place.rank,
            hosts: vec![String::from("?"); place.size].into(),
            nodes: vec![0; place.size].into(),
            patience,
            link: Some(Arc::new(link)),
            traffic: Arc::default(),
        };
        let mut greeting = Greeting {
            host: place.host,
            node: place.node,
            same: same
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        };
        for (name, value) in [
            (
                "version of rezero",
                concat!(env!("CARGO_PKG_VERSION"), " ", env!("REZERO_COMMIT")),
            ),
            ("version of burn", BURN_VERSION),
            (
                "byte order",
                if cfg!(target_endian = "little") {
                    "little-endian"
                } else {
                    "big-endian"
                },
            ),
        ] {
            greeting.same.insert(name.to_owned(), value.to_owned());
        }
        let all: Vec<Greeting> = match ranks.gather(&greeting) {
            Ok(all) => all,
            Err(error) => return Err(ranks.end(error)),
        };
        ranks.hosts = all.iter().map(|other| other.host.clone()).collect();
        ranks.nodes = all.iter().map(|other| other.node).collect();
        for (rank, other) in all.iter().enumerate() {
            for (name, value) in &all[0].same {
                if other.same.get(name) != Some(value) {
                    let theirs = other.same.get(name).map_or("none", String::as_str);
                    let error = ranks.differs(rank, name, theirs, value);
                    return Err(ranks.end(error));
                }
            }
        }
        Ok(ranks)
    }
}
