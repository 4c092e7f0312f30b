//! Whether an instance of a function could ever be placed here, whatever else runs: known before anything waits for it.

#[cfg(test)]
mod tests {
    use kip_spec::Bytes;
    use kip_spec::MilliCpu;
    use kip_spec::function::{GpuNeed, GpuResources};

    use crate::testing::{Room, spec};

    #[tokio::test]
    async fn the_placers_rules_decide_whether_one_could_ever_be_placed() {
        let room = Room::open(|_| {}).await;
        let why = |change: &dyn Fn(&mut kip_spec::function::Resources)| {
            let mut spec = spec("g");
            change(&mut spec.resources);
            room.control.never_fits(&spec)
        };
        assert_eq!(why(&|_| {}), None);
        // More cores than the host has count as all of them, for tasks as for requests.
        assert_eq!(why(&|resources| resources.cpu = Some(MilliCpu(1_000_000))), None);
        let memory = why(&|resources| resources.memory = Some(Bytes(2 << 40))).unwrap();
        assert!(memory.contains("of memory, and a host has"), "{memory}");
        let gpu = || GpuResources { need: GpuNeed::Cards(1), kind: None, isolation: Default::default() };
        let device = why(&|resources| resources.gpu = Some(gpu())).unwrap();
        assert!(device.contains("it needs a device, and none is declared"), "{device}");
    }
}
