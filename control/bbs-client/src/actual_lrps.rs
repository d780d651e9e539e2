//! Calls about instances.

use bbs_models::*;

use crate::call::Client;
use crate::error::Error;

impl Client {
    /// The rows that every given filter lets pass.
    pub async fn actual_lrps(&self, filter: ActualLRPsRequest) -> Result<Vec<ActualLRP>, Error> {
        let answer: ActualLRPsResponse = self.call("/v1/actual_lrps/list", &filter).await?;
        Ok(answer.actual_lrps)
    }

    /// All rows of these processes, of which there must be one.
    pub async fn actual_lrps_of(
        &self,
        process_guids: Vec<String>,
    ) -> Result<Vec<ActualLRP>, Error> {
        let request = ActualLRPsByProcessGuidsRequest { process_guids, ..Default::default() };
        let answer: ActualLRPsByProcessGuidsResponse =
            self.call("/v1/actual_lrps/list_by_process_guids", &request).await?;
        Ok(answer.actual_lrps)
    }

    /// A cell takes an instance. When it is refused the cell gives up its container.
    pub async fn claim_actual_lrp(
        &self,
        process_guid: &str,
        index: i32,
        instance: ActualLRPInstanceKey,
    ) -> Result<(), Error> {
        let request = ClaimActualLRPRequest {
            process_guid: process_guid.into(),
            index,
            actual_lrp_instance_key: instance.into(),
            ..Default::default()
        };
        self.actual("/v1/actual_lrps/claim", &request).await
    }

    /// A cell runs an instance; it repeats this, which is cheap when nothing has changed. When it
    /// is refused the cell stops its container.
    pub async fn start_actual_lrp(&self, request: StartActualLRPRequest) -> Result<(), Error> {
        self.actual("/v1/actual_lrps/start.r1", &request).await
    }

    /// An instance ended without being told to.
    pub async fn crash_actual_lrp(
        &self,
        key: ActualLRPKey,
        instance: ActualLRPInstanceKey,
        reason: &str,
    ) -> Result<(), Error> {
        let request = CrashActualLRPRequest {
            actual_lrp_key: key.into(),
            actual_lrp_instance_key: instance.into(),
            error_message: reason.into(),
            ..Default::default()
        };
        self.actual("/v1/actual_lrps/crash", &request).await
    }

    /// No cell could be found for an instance.
    pub async fn fail_actual_lrp(&self, key: ActualLRPKey, reason: &str) -> Result<(), Error> {
        let request = FailActualLRPRequest {
            actual_lrp_key: key.into(),
            error_message: reason.into(),
            ..Default::default()
        };
        self.actual("/v1/actual_lrps/fail", &request).await
    }

    /// A cell has an instance no longer; whichever is there if none is named.
    pub async fn remove_actual_lrp(
        &self,
        process_guid: &str,
        index: i32,
        instance: Option<ActualLRPInstanceKey>,
    ) -> Result<(), Error> {
        let request = RemoveActualLRPRequest {
            process_guid: process_guid.into(),
            index,
            actual_lrp_instance_key: instance.into(),
            ..Default::default()
        };
        self.actual("/v1/actual_lrps/remove", &request).await
    }

    /// Stops an instance, which is started anew if it is still desired.
    pub async fn retire_actual_lrp(&self, key: ActualLRPKey) -> Result<(), Error> {
        let request = RetireActualLRPRequest { actual_lrp_key: key.into(), ..Default::default() };
        self.actual("/v1/actual_lrps/retire", &request).await
    }

    /// A cell has an evacuating instance no longer.
    pub async fn remove_evacuating_actual_lrp(
        &self,
        key: ActualLRPKey,
        instance: ActualLRPInstanceKey,
    ) -> Result<(), Error> {
        let request = RemoveEvacuatingActualLRPRequest {
            actual_lrp_key: key.into(),
            actual_lrp_instance_key: instance.into(),
            ..Default::default()
        };
        let _: RemoveEvacuatingActualLRPResponse =
            self.call("/v1/actual_lrps/remove_evacuating", &request).await?;
        Ok(())
    }

    /// A cell that is drained has only claimed the instance. Says whether to keep the container.
    pub async fn evacuate_claimed_actual_lrp(
        &self,
        key: ActualLRPKey,
        instance: ActualLRPInstanceKey,
    ) -> Result<bool, Error> {
        let request = EvacuateClaimedActualLRPRequest {
            actual_lrp_key: key.into(),
            actual_lrp_instance_key: instance.into(),
            ..Default::default()
        };
        self.evacuate("/v1/actual_lrps/evacuate_claimed", &request).await
    }

    /// The instance has crashed on a cell that is drained. Says whether to keep the container.
    pub async fn evacuate_crashed_actual_lrp(
        &self,
        key: ActualLRPKey,
        instance: ActualLRPInstanceKey,
        reason: &str,
    ) -> Result<bool, Error> {
        let request = EvacuateCrashedActualLRPRequest {
            actual_lrp_key: key.into(),
            actual_lrp_instance_key: instance.into(),
            error_message: reason.into(),
            ..Default::default()
        };
        self.evacuate("/v1/actual_lrps/evacuate_crashed", &request).await
    }

    /// The instance was stopped on a cell that is drained. Says whether to keep the container.
    pub async fn evacuate_stopped_actual_lrp(
        &self,
        key: ActualLRPKey,
        instance: ActualLRPInstanceKey,
    ) -> Result<bool, Error> {
        let request = EvacuateStoppedActualLRPRequest {
            actual_lrp_key: key.into(),
            actual_lrp_instance_key: instance.into(),
            ..Default::default()
        };
        self.evacuate("/v1/actual_lrps/evacuate_stopped", &request).await
    }

    /// The instance runs on a cell that is drained. Says whether to keep the container.
    pub async fn evacuate_running_actual_lrp(
        &self,
        request: EvacuateRunningActualLRPRequest,
    ) -> Result<bool, Error> {
        self.evacuate("/v1/actual_lrps/evacuate_running.r1", &request).await
    }

    async fn actual(&self, call: &'static str, request: &impl Message) -> Result<(), Error> {
        let _: ActualLRPLifecycleResponse = self.call(call, request).await?;
        Ok(())
    }

    async fn evacuate(&self, call: &'static str, request: &impl Message) -> Result<bool, Error> {
        let answer: EvacuationResponse = self.call(call, request).await?;
        Ok(answer.keep_container)
    }
}
