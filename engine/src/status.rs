//! How an engine is at one moment, for those who watch it from outside.

use std::sync::Arc;

use featureflight_online::gateway::Gateway;

use crate::engine::Engine;
use crate::memory::resident_bytes;
use crate::query::QueryFigures;

/// See the module. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineStatus {
    pub running: usize,
    pub max_running: usize,
    pub queued: usize,
    pub max_queued: usize,
    /// Statements being planned, and those that wait for it.
    pub planning: usize,
    pub waiting_to_plan: usize,
    /// Of queries, that were begun and have not ended.
    pub tasks: usize,
    /// What the operators of queries hold, and temporary tables and rows on their way in; and what
    /// both may hold.
    pub query_memory: usize,
    pub table_memory: usize,
    pub memory_limit: usize,
    /// What the process takes; `None` where the kernel does not say.
    pub process_memory: Option<u64>,
    pub process_memory_limit: u64,
    pub spilled: u64,
    pub spill_limit: u64,
}

impl Engine {
    pub fn status(&self) -> EngineStatus {
        let (running, queued) = self.core.admission.load();
        let (planning, waiting_to_plan) = self.core.planning.load();
        let disk = &self.core.base.runtime_env().disk_manager;
        EngineStatus {
            running,
            max_running: self.options.max_running_queries,
            queued,
            max_queued: self.options.max_queued_queries,
            planning,
            waiting_to_plan,
            tasks: self.core.executor.tasks(),
            query_memory: self.core.memory.reserved(),
            table_memory: self.core.memory.kept().reserved(),
            memory_limit: self.options.memory_limit_bytes,
            process_memory: resident_bytes(),
            process_memory_limit: self.options.process_memory_limit_bytes,
            spilled: disk.used_disk_space(),
            spill_limit: disk.max_temp_directory_size(),
        }
    }

    /// What statements came to since the start.
    pub fn figures(&self) -> &QueryFigures {
        self.core.queries.figures()
    }

    /// Where rows are written, if they are.
    pub fn gateway(&self) -> Option<&Arc<Gateway>> {
        self.core.writes.through()
    }
}
