use std::time::Duration;

use super::*;

const WORDS: Words<'static> = Words { service: "service", keys: &[], columns: Some(2) };
const INVITE: &str = "<send><![CDATA[\n  INVITE sip:a SIP/2.0\n  Call-ID: [call_id]\n]]></send>";

#[test]
fn every_scenario_of_the_fixtures_is_read() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sip-fixtures/scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let scenario = parse(&std::fs::read_to_string(&path).unwrap(), &WORDS);
        names.push(scenario.unwrap_or_else(|error| panic!("{}: {error}", path.display())).name);
    }
    assert!(names.iter().any(|name| name == "missed call"), "{names:?}");
}

#[test]
fn steps_have_what_their_elements_say() {
    let text = r#"<?xml version="1.0" encoding="ISO-8859-1" ?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<scenario name="all">
  <send retrans="500" start_rtd="one" lost="10"><![CDATA[
    INVITE sip:[service]@[remote_ip] SIP/2.0
    Call-ID: [call_id]
  ]]></send>
  <recv response="100" optional="true" next="ring" chance="0.25"/>
  <recv response="180" optional="global" rrs="true" crlf="true"/>
  <label id="ring"/>
  <recv response="200" rtd="one" timeout="3000" ontimeout="end"/>
  <pause milliseconds="1.5"/>
  <pause distribution="uniform" min="10" max="20"/>
  <nop><action><log message="call [call_number]"/><warning message="w"/></action></nop>
  <send><![CDATA[
    ACK sip:a SIP/2.0
    Call-ID: [call_id]
  ]]></send>
  <recv request="BYE" rtd="true"/>
  <label id="end"/>
  <ResponseTimeRepartition value="1, 2"/>
  <CallLengthRepartition value="1, 2"/>
</scenario>"#;
    let scenario = parse(text, &WORDS).unwrap();
    assert_eq!((scenario.steps.len(), scenario.methods.as_slice()), (9, &["INVITE".to_owned(), "ACK".to_owned()][..]));
    assert_eq!(scenario.timers, ["one", "1"]);
    let Act::Send(send) = &scenario.steps[0].act else { panic!("a send") };
    assert_eq!((send.kind, send.repeat), (Kind::Invite, Some(Duration::from_millis(500))));
    assert_eq!((scenario.steps[0].start_timer, scenario.steps[0].lost), (Some(0), 0.1));
    assert_eq!(scenario.steps[1].jump, Some(Jump { to: 3, chance: 0.25 }));
    let Act::Receive(receive) = &scenario.steps[3].act else { panic!("a recv") };
    assert_eq!(receive.expected, Expected::Response { code: 200, methods: 1 });
    assert_eq!((receive.timeout, scenario.steps[3].on_timeout), (Some(Duration::from_secs(3)), Some(9)));
    assert!(matches!(scenario.steps[4].act, Act::Pause(Pause::Fixed(pause)) if pause == Duration::from_micros(1_500)));
    assert_eq!(scenario.steps[6].lines.len(), 2);
    let Act::Receive(receive) = &scenario.steps[8].act else { panic!("a recv") };
    assert_eq!(receive.expected, Expected::Request("BYE".to_owned()));
}

#[test]
fn each_fault_is_told_with_its_place() {
    let cases = [
        ("<scenario>", "1:1", "no XML that can be read"),
        ("<sippscript/>", "1:1", "its outermost element is <sippscript>"),
        ("<scenario>\n</scenario>", "1:1", "the scenario sends nothing"),
        ("<scenario>\n  <recv request=\"INVITE\"/></scenario>", "2:3", "it is a server's"),
        ("<scenario>\n <sendCmd/></scenario>", "2:2", "<sendCmd> is not supported in <scenario>; use <send>"),
        (
            "<scenario>\n <send retrans=\"500\" start_txn=\"a\"/></scenario>",
            "2:22",
            "<send> has the attribute start_txn",
        ),
        ("<scenario><send>INVITE</send></scenario>", "1:11", "needs a message in <![CDATA["),
        ("<scenario><send><![CDATA[ \n ]]></send></scenario>", "1:11", "needs a message in <![CDATA["),
        ("<scenario><send><![CDATA[\n [x] sip:a SIP/2.0]]></send></scenario>", "2:2", "must begin with a method"),
        ("<scenario><send><![CDATA[\n ACK sip:a SIP/2.0]]></send></scenario>", "2:2", "needs Call-ID: [call_id]"),
        (
            "<scenario><send><![CDATA[\n ACK sip:a SIP/2.0\n  X: é[$1] ]]></send></scenario>",
            "3:7",
            "[$1] is not supported",
        ),
    ];
    for (text, place, fault) in cases {
        check(text, place, fault);
    }
}

#[test]
fn faults_behind_the_first_send_are_told_with_their_place() {
    let cases = [
        ("<recv/>", "2:1", "needs either request"),
        ("<recv request=\"BYE\" response=\"200\"/>", "2:1", "needs either request"),
        ("<recv response=\"20\"/>", "2:7", "response=\"20\" must be a status code"),
        ("<recv response=\"401\" auth=\"true\"/>", "2:22", "auth is not supported"),
        ("<recv response=\"100\" optional=\"maybe\"/>", "2:22", "must be true, false or global"),
        ("<recv response=\"100\" optional=\"true\"/>", "2:1", "an optional <recv> must stand before"),
        (
            "<recv response=\"100\" optional=\"true\"/><nop/><recv response=\"200\"/>",
            "2:1",
            "an optional <recv> must stand before",
        ),
        ("<recv response=\"200\" timeout=\"-1\"/>", "2:22", "must be milliseconds"),
        ("<recv response=\"200\" next=\"nowhere\"/>", "2:22", "there is no <label id=\"nowhere\"/>"),
        ("<label id=\"a\"/><label id=\"a\"/>", "2:16", "stands twice"),
        ("<label/>", "2:1", "<label> needs the attribute id"),
        ("<label id=\"_unexp.main\"/>", "2:1", "the label _unexp.main is not supported"),
        ("<send><![CDATA[ACK a SIP/2.0]]><![CDATA[b]]></send>", "2:32", "a second <![CDATA["),
        ("<send><![CDATA[ACK [last_message] SIP/2.0]]></send>", "2:20", "[last_message] is not supported; only"),
        ("<nop next=\"a\" test=\"1\"/>", "2:15", "test needs a variable"),
        ("<nop test=\"1\" hide=\"true\"/>", "2:6", "test needs a variable"),
        ("<nop hide=\"true\"/>", "2:6", "it may have start_rtd, rtd, crlf, lost, next, chance"),
        ("<nop lost=\"101\"/>", "2:6", "must be percent"),
        ("<nop start_rtd=\"a\"/>", "2:6", "the timer a begins here and ends nowhere"),
        ("<pause variable=\"1\"/>", "2:8", "<pause> has the attribute variable"),
        ("<pause distribution=\"gamma\"/>", "2:8", "must be fixed or uniform"),
        ("<pause min=\"2\" max=\"1\"/>", "2:16", "must be no less than min"),
        ("<pause min=\"2\"/>", "2:1", "<pause> needs the attribute max"),
        ("<nop><action><ereg regexp=\"a\"/></action></nop>", "2:14", "<ereg> is not supported in <action>; use <log>"),
        ("<nop><action><log message=\"a [b]\"/></action></nop>", "2:30", "[b] is not supported"),
        ("<nop><x/></nop>", "2:6", "<x> is not supported in <nop>; use <action>"),
        ("<nop crlf=\"1\"/>", "2:6", "must be true or false"),
    ];
    for (element, place, fault) in cases {
        let text = format!("<scenario><send><![CDATA[ACK [call_id] SIP/2.0]]></send>\n{element}</scenario>");
        check(&text, place, fault);
    }
}

#[test]
fn a_message_in_a_comment_is_none() {
    let comment = "<!-- <![CDATA[BYE a SIP/2.0]]> -->";
    let message = "<![CDATA[ACK [call_id] SIP/2.0]]>";
    let text = format!("<scenario><send>{comment}{message}{comment}</send></scenario>");
    assert_eq!(parse(&text, &WORDS).unwrap().methods, ["ACK"]);
    check(&format!("<scenario><send>{comment}</send></scenario>"), "1:11", "needs a message in <![CDATA[");
}

#[test]
fn timers_are_limited() {
    let many = (0..=MAX_TIMERS).fold(String::new(), |text, timer| text + &format!("<nop rtd=\"{timer}\"/>"));
    let error = parse(&format!("<scenario>{INVITE}{many}</scenario>"), &WORDS).unwrap_err();
    assert!(matches!(error.fault, Fault::TooManyTimers { most: MAX_TIMERS }), "{error}");
}

fn check(text: &str, place: &str, fault: &str) {
    let error = parse(text, &WORDS).unwrap_err();
    assert_eq!(format!("{}:{}", error.line, error.column), place, "{text}: {error}");
    assert!(error.to_string().contains(fault), "{text}: {error}");
}
