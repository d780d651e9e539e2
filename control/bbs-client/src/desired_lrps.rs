//! Calls about desired LRPs.

use bbs_models::*;

use crate::call::Client;
use crate::error::Error;

impl Client {
    /// The desired LRPs that every given filter lets pass.
    pub async fn desired_lrps(&self, filter: DesiredLRPsRequest) -> Result<Vec<DesiredLRP>, Error> {
        let answer: DesiredLRPsResponse = self.call("/v1/desired_lrps/list.r3", &filter).await?;
        Ok(answer.desired_lrps)
    }

    /// The desired LRP of a guid.
    pub async fn desired_lrp(&self, process_guid: &str) -> Result<DesiredLRP, Error> {
        let answer: DesiredLRPResponse =
            self.call("/v1/desired_lrps/get_by_process_guid.r3", &by_guid(process_guid)).await?;
        Ok(answer.desired_lrp.into_option().unwrap_or_default())
    }

    /// What placement needs to know of them. Not filtered by app guids.
    pub async fn scheduling_infos(
        &self,
        filter: DesiredLRPsRequest,
    ) -> Result<Vec<DesiredLRPSchedulingInfo>, Error> {
        let answer: DesiredLRPSchedulingInfosResponse =
            self.call("/v1/desired_lrp_scheduling_infos/list", &filter).await?;
        Ok(answer.desired_lrp_scheduling_infos)
    }

    /// What placement needs to know of one.
    pub async fn scheduling_info(
        &self,
        process_guid: &str,
    ) -> Result<DesiredLRPSchedulingInfo, Error> {
        let call = "/v1/desired_lrp_scheduling_infos/get_by_process_guid";
        let answer: DesiredLRPSchedulingInfoByProcessGuidResponse =
            self.call(call, &by_guid(process_guid)).await?;
        Ok(answer.desired_lrp_scheduling_info.into_option().unwrap_or_default())
    }

    /// What routing needs to know of them, filtered by process guids alone.
    pub async fn routing_infos(
        &self,
        filter: DesiredLRPsRequest,
    ) -> Result<Vec<DesiredLRP>, Error> {
        let answer: DesiredLRPsResponse =
            self.call("/v1/desired_lrp_routing_infos/list", &filter).await?;
        Ok(answer.desired_lrps)
    }

    /// Wants a process to run.
    pub async fn desire_lrp(&self, lrp: DesiredLRP) -> Result<(), Error> {
        let request = DesireLRPRequest { desired_lrp: lrp.into(), ..Default::default() };
        self.desired("/v1/desired_lrp/desire.r2", &request).await
    }

    /// Changes what can be changed of a process.
    pub async fn update_lrp(
        &self,
        process_guid: &str,
        update: DesiredLRPUpdate,
    ) -> Result<(), Error> {
        let request = UpdateDesiredLRPRequest {
            process_guid: process_guid.into(),
            update: update.into(),
            ..Default::default()
        };
        self.desired("/v1/desired_lrp/update", &request).await
    }

    /// Does not want a process any more.
    pub async fn remove_lrp(&self, process_guid: &str) -> Result<(), Error> {
        let request =
            RemoveDesiredLRPRequest { process_guid: process_guid.into(), ..Default::default() };
        self.desired("/v1/desired_lrp/remove", &request).await
    }

    async fn desired(&self, call: &'static str, request: &impl Message) -> Result<(), Error> {
        let _: DesiredLRPLifecycleResponse = self.call(call, request).await?;
        Ok(())
    }
}

fn by_guid(process_guid: &str) -> DesiredLRPByProcessGuidRequest {
    DesiredLRPByProcessGuidRequest { process_guid: process_guid.into(), ..Default::default() }
}
