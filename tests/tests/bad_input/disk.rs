//! A full disk: publishing is refused clearly, reading goes on, nothing acknowledged is lost, and room heals it.

use tidegate_tests::checker;
use tidegate_tests::client::Outgoing;
use tidegate_tests::home::Home;
use tidegate_tests::machine::not_had;
use tidegate_tests::mount::SmallDisk;

/// Room for the segments that the gateway prepares ahead, and for a filler that takes most of the rest.
const DISK_MEBIBYTES: u64 = 512;
const LEFT_BYTES: u64 = 8 * 1024 * 1024;
const PAYLOAD_BYTES: usize = 512 * 1024;
/// Far more than the disk holds: by then it must have refused.
const EVENTS: usize = 2 * DISK_MEBIBYTES as usize * 1024 * 1024 / PAYLOAD_BYTES;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_clearly_and_heals() {
    let disk = match SmallDisk::mount(DISK_MEBIBYTES) {
        Ok(disk) => disk,
        Err(reason) => return not_had("a full disk", &reason),
    };
    let home = Home::with_data(&disk.path().join("data"));
    let gateway = home.start().await;
    let client = gateway.client();
    let data = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES));
    let filler = disk.fill_but(LEFT_BYTES);

    let mut acknowledged = Vec::new();
    let mut refusal = None;
    for n in 0..EVENTS {
        let id = n.to_string();
        let event = Outgoing { id: &id, data: &data, ..Outgoing::default() };
        let answer = client.publish("t", &event).await.expect("the gateway answers, also with a full disk");
        if answer.status == 202 {
            acknowledged.push(id);
        } else {
            refusal = Some(answer);
            break;
        }
    }
    let refusal = refusal.expect("a disk of 512 MiB does not hold a gibibyte");
    let code = refusal.expect_problem(&[503, 507]);
    println!("refused after {} events with {} {code}", acknowledged.len(), refusal.status);
    assert!(!acknowledged.is_empty(), "the disk was full before the first event");

    client.get("/livez").await.expect("the gateway answers").expect(200);
    let check = |read: Vec<checker::Recorded>| {
        let read: std::collections::HashSet<String> = read.into_iter().map(|event| event.id).collect();
        let lost: Vec<_> = acknowledged.iter().filter(|id| !read.contains(*id)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    };
    check(checker::read_topic(client, "t").await);

    std::fs::remove_file(filler).expect("the filler is ours");
    let mut healed = false;
    for attempt in 0..200 {
        let event = Outgoing { id: "healed", ..Outgoing::default() };
        let answer = client.publish("t", &event).await.expect("the gateway answers");
        if answer.status == 202 {
            healed = true;
            break;
        }
        answer.expect_problem(&[503, 507]);
        assert!(attempt < 199, "still refused with room on the disk: {answer}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(healed);

    assert!(gateway.terminate().await.success());
    let gateway = home.start().await;
    let read = checker::read_topic(gateway.client(), "t").await;
    assert!(read.iter().any(|event| event.id == "healed"));
    check(read);
    gateway.kill().await;
}
