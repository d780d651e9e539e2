//! Stopping and destroying.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use garden_sys::pidfd::ends_within;
use rustix::process::{Pid, Signal as Number, kill_process};

use super::Gardener;
use crate::container::{Body, Container};
use crate::depot::{PeaRecord, Phase};
use crate::error::Error;
use crate::fault;
use crate::leavings::Leaving;
use crate::meters::METERS;

/// A process that survives SIGKILL for so long is the kernel's.
pub(super) const UNKILLABLE: Duration = Duration::from_secs(10);
/// Rounds of asking processes to end, a second apart.
const ROUNDS: u32 = 10;

impl Gardener {
    /// Destroys a container. Everything is tried, and its record goes last: after an error the
    /// container stays listed and may be destroyed again.
    pub fn destroy(&self, handle: &str) -> Result<(), Error> {
        METERS.destroys.time(|| {
            let container = self.find(handle)?;
            container.begin_destroy()?;
            self.undo_or_keep(&container)
        })
    }

    /// Destroys a container, waiting for whoever is destroying it already.
    pub(super) fn destroy_for_certain(&self, handle: &str) -> Result<(), Error> {
        let deadline = Instant::now() + 3 * UNKILLABLE;
        loop {
            let container = self.find(handle)?;
            match container.begin_destroy() {
                Ok(()) => return self.undo_or_keep(&container),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => {}
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Removes everything of a container whose destroyer the caller is, or lets the next one try.
    fn undo_or_keep(&self, container: &Arc<Container>) -> Result<(), Error> {
        let destroyed = self.undo(container);
        if destroyed.is_err() {
            container.fail_destroy();
        }
        destroyed
    }

    /// Removes everything of a container, whatever of it there is.
    pub(super) fn undo(&self, container: &Arc<Container>) -> Result<(), Error> {
        let handle = container.handle.as_str();
        fault::step("destroy/entered");
        // On a full disk a destroy must work, too: a daemon that finds the old phase and no process 1
        // goes on where this one was killed.
        if let Err(error) = container.change(&self.depot, |record| record.phase = Phase::Destroying)
        {
            tracing::warn!(handle, %error, "a destroy is not written down");
        }
        fault::step("destroy/recorded");
        let mut errors = Vec::new();
        let mut attempt = |what: &str, outcome: Result<(), Error>| {
            let done = outcome.is_ok();
            if let Err(error) = outcome {
                tracing::warn!(handle, %error, "cannot {what}");
                errors.push(error.to_string());
            }
            done
        };
        let mut leaving = Leaving::default();
        let ended = attempt("end its processes", self.end_processes(container, &mut leaving));
        attempt("take its network down", self.network.destroy(handle));
        fault::step("destroy/network-removed");
        if ended && container.look(|record| record.made_image) {
            attempt("delete its image", self.delete_image(handle));
        }
        if !errors.is_empty() {
            return Err(Error::Plain(errors.join("; ")));
        }
        container
            .forget(&self.depot)
            .map_err(|error| Error::because("cannot forget the container", &error))?;
        self.containers().remove(handle);
        fault::step("destroy/forgotten");
        self.leavings.put(leaving);
        Ok(())
    }

    fn delete_image(&self, handle: &str) -> Result<(), Error> {
        // A start without plugins was refused.
        self.images.as_ref().map_or(Ok(()), |plugins| plugins.delete(handle))
    }

    /// Kills all processes, and says what is left then.
    fn end_processes(&self, container: &Container, leaving: &mut Leaving) -> Result<(), Error> {
        // Of a create that has failed the record knows neither slot nor volume.
        let (mut slots, mut volumes) = container.look(|record| {
            (record.slots().collect::<BTreeSet<_>>(), record.volumes().collect::<BTreeSet<_>>())
        });
        let body = container.body();
        volumes.extend(body.iter().map(|body| body.volume));
        leaving.volumes = volumes.into_iter().filter(|volume| *volume != 0).collect();
        slots.remove(&0);
        if let Some(body) = body {
            slots.remove(&body.slot.number());
            // What deletes an image may need to have its mounts gone.
            if !container.look(|record| record.made_image) {
                leaving.mounts.extend(body.init.mount_namespace());
            }
            for slot in &slots {
                self.kill_slot(*slot)?;
            }
            body.slot
                .kill(UNKILLABLE)
                .map_err(|error| Error::because("cannot kill the container's processes", &error))?;
            let ended = ends_within(&*body.init.pidfd, UNKILLABLE)
                .map_err(|error| Error::because("cannot wait for process 1", &error))?;
            if !ended {
                return Err(Error::Plain("the container's process 1 does not end".into()));
            }
            fault::step("destroy/killed");
            self.unwatch_memory(&body.slot);
            // Their clients hear of the end before the destroy is answered.
            let deadline = Instant::now() + Duration::from_secs(1);
            for process in container.processes() {
                while process.outcome().is_none() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            leaving.slots = slots.into_iter().chain([body.slot.number()]).collect();
        } else {
            slots.into_iter().try_for_each(|slot| self.remove_slot(slot))?;
        }
        leaving.children = self.children_of(container)?;
        Ok(())
    }

    /// Tickets of all its children that the keeper knows, those included that were being started
    /// until now.
    fn children_of(&self, container: &Container) -> Result<Vec<u64>, Error> {
        let mut tickets: BTreeSet<u64> = container.look(|record| record.tickets().collect());
        tickets.extend(container.processes().iter().map(|process| process.ticket()));
        tickets.extend(container.body().map(|body| body.init.ticket));
        let mut children = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            self.exits.forget(ticket);
            let known = self.supervisor.child(ticket).map_err(|error| {
                Error::because("cannot look for the container's processes", &error)
            })?;
            children.extend(known.map(|_| ticket));
        }
        Ok(children)
    }

    /// Kills what is in a slot, if it is there.
    fn kill_slot(&self, number: u32) -> Result<(), Error> {
        let killed = match self.maker.hierarchy.open(number) {
            Ok(slot) => slot.kill(UNKILLABLE),
            Err(error) if error.is_gone() => Ok(()),
            Err(error) => Err(error),
        };
        let attempt = || format!("cannot kill what is in the cgroup {number}");
        killed.map_err(|error| Error::because(attempt(), &error))
    }

    /// Kills what is in a slot and removes it.
    pub(super) fn remove_slot(&self, number: u32) -> Result<(), Error> {
        self.kill_slot(number)?;
        let removed = self.maker.hierarchy.remove(number, Duration::from_secs(1));
        removed
            .map_err(|error| Error::because(format!("cannot remove the cgroup {number}"), &error))
    }

    /// Ends all processes but process 1: politely at first unless `kill`.
    pub fn stop(&self, handle: &str, kill: bool) -> Result<(), Error> {
        let (container, _call) = self.call(handle)?;
        if let Some(body) = container.body() {
            let signals: &[Number] =
                if kill { &[Number::KILL] } else { &[Number::TERM, Number::KILL] };
            'signals: for signal in signals {
                for _ in 0..ROUNDS {
                    let pids = self.workload(&container, &body)?;
                    if pids.is_empty() {
                        break 'signals;
                    }
                    signal_all(&pids, *signal);
                    if self.ends(&container, &body, Duration::from_secs(1))? {
                        break 'signals;
                    }
                }
            }
        }
        container.change(&self.depot, |record| {
            if record.phase == Phase::Created {
                record.phase = Phase::Stopped;
            }
            record.properties.insert("rundmc.state".into(), "stopped".into());
        })
    }

    /// All processes but process 1, those of peas included.
    fn workload(&self, container: &Container, body: &Body) -> Result<Vec<Pid>, Error> {
        let own: Vec<u32> =
            container.look(|record| record.peas().filter_map(PeaRecord::slot).collect());
        let listed = (|| {
            let mut pids = body.slot.workload()?;
            for number in own {
                match self.maker.hierarchy.open(number).and_then(|slot| slot.workload()) {
                    Err(error) if error.is_gone() => {}
                    found => pids.extend(found?),
                }
            }
            Ok(pids)
        })();
        listed.map_err(|error: garden_cgroup::Error| {
            Error::because("cannot list the container's processes", &error)
        })
    }

    /// Waits until nothing but process 1 is left, or a round is over.
    fn ends(&self, container: &Container, body: &Body, round: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + round;
        loop {
            if self.workload(container, body)?.is_empty() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn signal_all(pids: &[Pid], signal: Number) {
    for pid in pids {
        // It may have ended since it was listed.
        let _ = kill_process(*pid, signal);
    }
}
