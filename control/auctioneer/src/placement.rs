//! Which cell gets what: states and wishes in, work out. No I/O, no clock, no chance.
//!
//! Every instance and task goes to the cell of the lowest score at that moment, and what is placed
//! counts at once. A score adds how full the cell would be (0 to 1), what starts on it, and a
//! thousand for each instance of the same process; of equal cells the first is taken.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use rep_api::{CellState, Lrp, PlacementConstraint, Resource, Resources, Task, Work};

/// What each instance of the same process, or each task, on a cell adds to its score.
const LOCALITY: f64 = 1000.0;

/// What an operator may weigh differently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// What each container that starts on a cell adds to its score.
    pub starting_container: f64,
    /// What a cell's number in its zone adds, counted from 0: with it cells are filled one after
    /// the other.
    pub bin_pack_first_fit: f64,
    /// Containers that may start at once on all cells; 0 is no limit.
    pub starting_containers_maximum: i32,
}

impl Default for Weights {
    /// The original's.
    fn default() -> Self {
        Self { starting_container: 0.25, bin_pack_first_fit: 0.0, starting_containers_maximum: 0 }
    }
}

/// Why something found no place; `Display` is what the user reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// No cell answered.
    NoCells,
    /// No cell has the root file system.
    RootFs,
    /// Of those that have it, none has the volume drivers.
    VolumeDrivers,
    /// Of those that have both, none admits work of these tags.
    PlacementTags(Vec<String>),
    /// What is short on every cell that is left.
    Resources(Vec<&'static str>),
    /// Enough containers start already.
    InFlight,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCells => f.write_str("unable to communicate to compatible cells"),
            Self::RootFs => f.write_str("found no compatible cell for required rootfs"),
            Self::VolumeDrivers => {
                f.write_str("found no compatible cell with required volume drivers")
            }
            Self::PlacementTags(tags) => {
                f.write_str("found no compatible cell with ")?;
                match tags.as_slice() {
                    [] => f.write_str("no placement tags"),
                    [tag] => write!(f, "placement tag \"{tag}\""),
                    [tags @ .., last] => {
                        let quoted: Vec<_> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
                        write!(f, "placement tags {} and \"{last}\"", quoted.join(", "))
                    }
                }
            }
            Self::Resources(short) if short.is_empty() => f.write_str("insufficient resources"),
            Self::Resources(short) => write!(f, "insufficient resources: {}", short.join(", ")),
            Self::InFlight => {
                f.write_str("waiting to start instance: reached in-flight start limit")
            }
        }
    }
}

/// The result of an auction.
#[derive(Debug, Default, PartialEq)]
pub struct Placements {
    /// The cells' work, by their ids.
    pub work: BTreeMap<String, Work>,
    /// Instances without a place.
    pub failed_lrps: Vec<(Lrp, Misfit)>,
    /// Tasks without a place.
    pub failed_tasks: Vec<(Task, Misfit)>,
}

/// Places everything: the first instance of each process before all tasks, these before the other
/// instances, and of each kind the largest first. Of equal cells the one that comes first in
/// `cells` wins.
pub fn place(
    cells: Vec<CellState>,
    mut lrps: Vec<Lrp>,
    mut tasks: Vec<Task>,
    weights: &Weights,
) -> Placements {
    lrps.sort_by_key(|lrp| (lrp.index, std::cmp::Reverse(lrp.resource.memory_mb)));
    tasks.sort_by_key(|task| std::cmp::Reverse(task.resource.memory_mb));
    let others = lrps.split_off(lrps.partition_point(|lrp| lrp.index <= 0));

    let mut board = Board::new(cells, &lrps, &others, weights);
    let mut placements = Placements::default();
    lrps.into_iter().for_each(|lrp| board.take_lrp(lrp, &mut placements));
    tasks.into_iter().for_each(|task| board.take_task(task, &mut placements));
    others.into_iter().for_each(|lrp| board.take_lrp(lrp, &mut placements));
    placements
}

/// The cells while an auction is under way.
struct Board<'a> {
    weights: &'a Weights,
    cells: Vec<Cell>,
    zones: usize,
    /// Containers that start, those placed here included.
    starting: i32,
    processes: HashMap<String, Spread>,
    /// Which cells a constraint leaves: the instances of a process, and most tasks, share one.
    fitting: HashMap<PlacementConstraint, Result<Arc<[usize]>, Misfit>>,
}

struct Cell {
    state: CellState,
    zone: usize,
    /// The number in its zone, when cells are filled one after the other.
    number: f64,
    left: Resources,
    starting: i32,
    tasks: usize,
}

/// Where the instances of a process are.
#[derive(Default)]
struct Spread {
    by_cell: HashMap<usize, u32>,
    by_zone: HashMap<usize, u32>,
}

impl Spread {
    fn add(&mut self, at: usize, zone: usize) {
        *self.by_cell.entry(at).or_default() += 1;
        *self.by_zone.entry(zone).or_default() += 1;
    }
}

impl<'a> Board<'a> {
    fn new(states: Vec<CellState>, first: &[Lrp], others: &[Lrp], weights: &'a Weights) -> Self {
        let mut zones: HashMap<String, usize> = HashMap::new();
        let mut cells = Vec::with_capacity(states.len());
        for state in states {
            let next = zones.len();
            let zone = *zones.entry(state.zone.clone()).or_insert(next);
            let (left, starting) = (state.available_resources, state.starting_container_count);
            let tasks = state.tasks.len();
            cells.push(Cell { state, zone, number: 0.0, left, starting, tasks });
        }
        let mut processes: HashMap<String, Spread> = HashMap::new();
        for lrp in first.iter().chain(others) {
            if !processes.contains_key(&lrp.process_guid) {
                processes.insert(lrp.process_guid.clone(), Spread::default());
            }
        }
        for (at, cell) in cells.iter().enumerate() {
            for lrp in cell.state.lrps.iter() {
                if let Some(spread) = processes.get_mut(&lrp.process_guid) {
                    spread.add(at, cell.zone);
                }
            }
        }
        let zones = zones.len();
        let starting = cells.iter().map(|cell| cell.starting).fold(0, i32::saturating_add);
        let mut board =
            Self { weights, cells, zones, starting, processes, fitting: HashMap::new() };
        if weights.bin_pack_first_fit > 0.0 {
            board.number_cells();
        }
        board
    }

    /// Cells' own numbers may have holes, and begin anew in each zone or not.
    fn number_cells(&mut self) {
        let mut order: Vec<usize> = (0..self.cells.len()).collect();
        order.sort_by_key(|&at| self.cells[at].state.cell_index);
        let mut next = vec![0.0; self.zones];
        for at in order {
            let cell = &mut self.cells[at];
            cell.number = next[cell.zone];
            next[cell.zone] += 1.0;
        }
    }

    fn take_lrp(&mut self, lrp: Lrp, placements: &mut Placements) {
        match self.cell_for_lrp(&lrp) {
            Ok(at) => {
                self.reserve(at, &lrp.resource);
                if let Some(spread) = self.processes.get_mut(&lrp.process_guid) {
                    spread.add(at, self.cells[at].zone);
                }
                self.work(at, placements).lrps.push(lrp);
            }
            Err(misfit) => placements.failed_lrps.push((lrp, misfit)),
        }
    }

    fn take_task(&mut self, task: Task, placements: &mut Placements) {
        match self.cell_for_task(&task) {
            Ok(at) => {
                self.reserve(at, &task.resource);
                self.cells[at].tasks += 1;
                self.work(at, placements).tasks.push(task);
            }
            Err(misfit) => placements.failed_tasks.push((task, misfit)),
        }
    }

    fn work<'b>(&self, at: usize, placements: &'b mut Placements) -> &'b mut Work {
        let cell_id = &self.cells[at].state.cell_id;
        if !placements.work.contains_key(cell_id) {
            let work = Work { cell_id: cell_id.clone(), ..Work::default() };
            placements.work.insert(cell_id.clone(), work);
        }
        placements.work.entry(cell_id.clone()).or_default()
    }

    /// The best cell of the zone that has the fewest instances of the process; zones that have
    /// equally few are one. Where they are full the next ones are looked at.
    fn cell_for_lrp(&mut self, lrp: &Lrp) -> Result<usize, Misfit> {
        self.check_in_flight()?;
        let fitting = self.fitting(&lrp.placement)?;
        let nowhere = Spread::default();
        let spread = self.processes.get(&lrp.process_guid).unwrap_or(&nowhere);
        let in_zone = |zone| spread.by_zone.get(&zone).copied().unwrap_or_default();

        let mut best: Option<(u32, f64, usize)> = None;
        let mut shortage = Shortage::default();
        for &at in &*fitting {
            let cell = &self.cells[at];
            let mut resource = lrp.resource;
            resource.memory_mb =
                resource.memory_mb.saturating_add(cell.state.proxy_memory_allocation_mb);
            let Some(left) = shortage.take(&cell.left, &resource) else { continue };
            let same = spread.by_cell.get(&at).copied().unwrap_or_default();
            let score = self.fullness(cell, &left)
                + LOCALITY * f64::from(same)
                + cell.number * self.weights.bin_pack_first_fit;
            let zone = in_zone(cell.zone);
            if best.is_none_or(|(few, low, _)| (zone, score) < (few, low)) {
                best = Some((zone, score, at));
            }
        }
        best.map(|(_, _, at)| at).ok_or_else(|| shortage.misfit())
    }

    fn cell_for_task(&mut self, task: &Task) -> Result<usize, Misfit> {
        self.check_in_flight()?;
        let mut best: Option<(f64, usize)> = None;
        let mut shortage = Shortage::default();
        for &at in &*self.fitting(&task.placement)? {
            let cell = &self.cells[at];
            let Some(left) = shortage.take(&cell.left, &task.resource) else { continue };
            let tasks = u32::try_from(cell.tasks).unwrap_or(u32::MAX);
            let score = self.fullness(cell, &left) + LOCALITY * f64::from(tasks);
            if best.is_none_or(|(low, _)| score < low) {
                best = Some((score, at));
            }
        }
        best.map(|(_, at)| at).ok_or_else(|| shortage.misfit())
    }

    fn check_in_flight(&self) -> Result<(), Misfit> {
        let most = self.weights.starting_containers_maximum;
        if most > 0 && self.starting >= most { Err(Misfit::InFlight) } else { Ok(()) }
    }

    fn fitting(&mut self, constraint: &PlacementConstraint) -> Result<Arc<[usize]>, Misfit> {
        if let Some(found) = self.fitting.get(constraint) {
            return found.clone();
        }
        let found = fitting(&self.cells, constraint).map(Arc::from);
        self.fitting.insert(constraint.clone(), found.clone());
        found
    }

    /// How full a cell is when this is left, and how much of that still starts.
    fn fullness(&self, cell: &Cell, left: &Resources) -> f64 {
        let total = &cell.state.total_resources;
        let used = |left: i32, total: i32| match total {
            0 => 1.0,
            total => 1.0 - f64::from(left) / f64::from(total),
        };
        (used(left.memory_mb, total.memory_mb)
            + used(left.disk_mb, total.disk_mb)
            + used(left.containers, total.containers))
            / 3.0
            + f64::from(cell.starting) * self.weights.starting_container
    }

    /// What a cell gives away is what was asked for; its proxies' memory it tells of next time.
    fn reserve(&mut self, at: usize, resource: &Resource) {
        let cell = &mut self.cells[at];
        cell.left.memory_mb -= resource.memory_mb;
        cell.left.disk_mb -= resource.disk_mb;
        cell.left.containers -= 1;
        cell.starting = cell.starting.saturating_add(1);
        self.starting = self.starting.saturating_add(1);
    }
}

/// The cells that a constraint leaves, or what the last cells failed by.
fn fitting(cells: &[Cell], constraint: &PlacementConstraint) -> Result<Vec<usize>, Misfit> {
    if cells.is_empty() {
        return Err(Misfit::NoCells);
    }
    let mut left: Vec<usize> = (0..cells.len()).collect();
    left.retain(|&at| cells[at].state.has_root_fs(&constraint.root_fs));
    if left.is_empty() {
        return Err(Misfit::RootFs);
    }
    left.retain(|&at| cells[at].state.has_volume_drivers(&constraint.volume_drivers));
    if left.is_empty() {
        return Err(Misfit::VolumeDrivers);
    }
    left.retain(|&at| cells[at].state.admits(&constraint.placement_tags));
    if left.is_empty() {
        return Err(Misfit::PlacementTags(constraint.placement_tags.to_vec()));
    }
    Ok(left)
}

/// What all cells looked at are short of, in the order of the names.
#[derive(Debug)]
struct Shortage {
    containers: bool,
    disk: bool,
    memory: bool,
}

impl Default for Shortage {
    fn default() -> Self {
        Self { containers: true, disk: true, memory: true }
    }
}

impl Shortage {
    /// What is left after this, if it fits.
    fn take(&mut self, left: &Resources, resource: &Resource) -> Option<Resources> {
        let memory_mb = i64::from(left.memory_mb) - i64::from(resource.memory_mb);
        let disk_mb = i64::from(left.disk_mb) - i64::from(resource.disk_mb);
        let containers = i64::from(left.containers) - 1;
        self.memory &= memory_mb < 0;
        self.disk &= disk_mb < 0;
        self.containers &= containers < 0;
        let rest = |left: i64| i32::try_from(left).ok().filter(|left| *left >= 0);
        Some(Resources {
            memory_mb: rest(memory_mb)?,
            disk_mb: rest(disk_mb)?,
            containers: rest(containers)?,
        })
    }

    fn misfit(&self) -> Misfit {
        let all = [(self.containers, "containers"), (self.disk, "disk"), (self.memory, "memory")];
        Misfit::Resources(
            all.into_iter().filter(|(short, _)| *short).map(|(_, what)| what).collect(),
        )
    }
}
