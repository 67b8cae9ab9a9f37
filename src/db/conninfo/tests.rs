use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::error::ErrorKind;

const SECRET: &str = "p@ss/w:rd?#%";
const ENCODED: &str = "p%40ss%2Fw%3Ard%3F%23%25";

fn parse(text: &str, env: &[(&str, &str)]) -> Result<ConnInfo> {
    ConnInfo::parse(text, &|name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
}

/// `user password hosts dbname sslmode`, with `-` for no password.
#[track_caller]
fn check_in(env: &[(&str, &str)], text: &str, expected: &str) {
    let info = parse(text, env).unwrap();
    let config = info.config();
    let password = config.get_password().map_or("-".into(), String::from_utf8_lossy);
    let (user, dbname) = (config.get_user().unwrap(), config.get_dbname().unwrap());
    let hosts = info.host().replace(", ", ",");
    assert_eq!(format!("{user} {password} {hosts} {dbname} {}", info.tls().mode.name()), expected);
}

#[track_caller]
fn check(text: &str, expected: &str) {
    check_in(&[], text, expected);
}

#[track_caller]
fn check_error(text: &str, expected: &str) {
    check_error_in(&[], text, expected);
}

#[track_caller]
fn check_error_in(env: &[(&str, &str)], text: &str, expected: &str) {
    let error = parse(text, env).map(|info| info.to_string()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn urls_are_read_as_libpq_does() {
    check("postgres://u:p@h/d", "u p h:5432 d prefer");
    check("postgresql://u@h:5433/d\n", "u - h:5433 d prefer");
    check("postgresql://u@h", "u - h:5432 u prefer");
    check("postgres://u@/d?host=h&port=1", "u - h:1 d prefer");
    check("postgres:///d?host=h&user=u&password=p%20q", "u p q h:5432 d prefer");
    check("postgres://u@h1,h2:2,[::1]:3/d", "u - h1:5432,h2:2,[::1]:3 d prefer");
    check("postgres://u@[2001:db8::1]/d", "u - [2001:db8::1]:5432 d prefer");
    check("postgres://u@%2Frun%2Fpg:7/d", "u - /run/pg/.s.PGSQL.7 d disable");
    check("postgres://u@/d?host=/run/pg", "u - /run/pg/.s.PGSQL.5432 d disable");
    check("postgres://u%40x@h/d%2Fe", "u@x - h:5432 d/e prefer");
    check("postgres://u@h/d?ssl=true", "u - h:5432 d require");
    check("postgres://u@h/d?user=v&port=9&", "v - h:9 d prefer");
    check("postgres://u:a:b@h/d", "u a:b h:5432 d prefer");
    check("postgres://u@h/d?sslmode=verify-full&sslrootcert=/r", "u - h:5432 d verify-full");
}

#[test]
fn pairs_are_read_as_libpq_does() {
    check("host=h user=u", "u - h:5432 u prefer");
    check(" host = h  port=7 user =u dbname= d ", "u - h:7 d prefer");
    check("host=h user=u password='a b' dbname=d", "u a b h:5432 d prefer");
    check(r"host=h user=u password='a\'b\\c' dbname=d", r"u a'b\c h:5432 d prefer");
    check(r"host=h user=u password=a\ b dbname=d", "u a b h:5432 d prefer");
    check("host=h user=u password='' dbname=d", "u - h:5432 d prefer");
    check("host=h user=u password=a=b dbname=d", "u a=b h:5432 d prefer");
    check("host=a,b port=1,2 user=u", "u - a:1,b:2 u prefer");
    check("host=a,b port=9 user=u", "u - a:9,b:9 u prefer");
    check("host=a,b port=,2 user=u", "u - a:5432,b:2 u prefer");
    check("hostaddr=127.0.0.1 user=u sslmode=require", "u - 127.0.0.1:5432 u require");
    check("host=h hostaddr=127.0.0.1 user=u sslmode=verify-full", "u - h:5432 u verify-full");
    check("host=/a,/b user=u sslmode=require", "u - /a/.s.PGSQL.5432,/b/.s.PGSQL.5432 u disable");
    check("host=/a,b user=u", "u - /a/.s.PGSQL.5432,b:5432 u prefer");
    check("host=h user=u sslmode=allow", "u - h:5432 u prefer");
    check("host=h user=u sslrootcert=system", "u - h:5432 u verify-full");
    check("host=h user=u gssencmode=prefer sslcompression=0 client_encoding=utf8 service=''", "u - h:5432 u prefer");
}

#[test]
fn what_is_left_open_comes_from_the_environment() {
    let env = [
        ("PGHOST", "e"),
        ("PGPORT", "6"),
        ("PGUSER", "eu"),
        ("PGPASSWORD", "ep"),
        ("PGDATABASE", "ed"),
        ("PGSSLMODE", "require"),
    ];
    check_in(&env, "", "eu ep e:6 ed require");
    check_in(&env, "postgres://", "eu ep e:6 ed require");
    check_in(&env, "postgres://u@h/d", "u ep h:6 d require");
    check_in(&env, "host=h sslmode=disable", "eu ep h:6 ed disable");
    // Empty in the string is libpq's default, not the variable's value.
    check_in(&env, "host=h dbname='' port='' password=''", "eu - h:5432 eu require");
    check_in(&[("PGSSLROOTCERT", "system")], "host=h user=u", "u - h:5432 u verify-full");
    check_in(
        &[("PGAPPNAME", "x"), ("PGHOST", "/s"), ("PGSSLMODE", "verify-full")],
        "user=u",
        "u - /s/.s.PGSQL.5432 u disable",
    );
    let user = whoami::username().unwrap();
    check("host=h", &format!("{user} - h:5432 {user} prefer"));
}

#[test]
fn behaviour_reaches_the_config() {
    let info = parse("host=h", &[]).unwrap();
    let config = info.config();
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(10)));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(30)));
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(30));
    assert!(config.get_keepalives());
    assert_eq!(config.get_channel_binding(), ChannelBinding::Prefer);

    let text = "host=h connect_timeout=3 tcp_user_timeout=1500 keepalives=0 keepalives_idle=5 keepalives_interval=6 \
                keepalives_count=7 target_session_attrs=read-write load_balance_hosts=random channel_binding=require \
                application_name=me options='-c statement_timeout=5' sslmode=require sslnegotiation=direct";
    let info = parse(text, &[("PGCONNECT_TIMEOUT", "99")]).unwrap();
    let config = info.config();
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
    assert!(!config.get_keepalives());
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(5));
    assert_eq!(config.get_keepalives_interval(), Some(Duration::from_secs(6)));
    assert_eq!(config.get_keepalives_retries(), Some(7));
    assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    assert_eq!(config.get_load_balance_hosts(), LoadBalanceHosts::Random);
    assert_eq!(config.get_channel_binding(), ChannelBinding::Require);
    assert_eq!(config.get_application_name(), Some("me"));
    assert_eq!(config.get_options(), Some("-c statement_timeout=5"));
    assert_eq!(config.get_ssl_negotiation(), SslNegotiation::Direct);

    let info = parse("host=h connect_timeout=0 tcp_user_timeout=0", &[]).unwrap();
    assert_eq!(info.config().get_connect_timeout(), None);
    assert_eq!(info.config().get_tcp_user_timeout(), None);
}

#[test]
fn errors_name_the_parameter_and_what_is_allowed() {
    check_error("host=h hots=x", "unknown connection parameter: hots");
    check_error("postgres://h/d?pool_size=3", "unknown connection parameter: pool_size");
    check_error("postgres://h/d?ssl=1", "ssl must be true");
    check_error("host=h sslmode=on", "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full");
    check_error("host=h port=x", "port must be a number from 1 to 65535");
    check_error("host=h port=0", "port must be");
    check_error("postgres://h:65536/d", "port must be");
    check_error_in(&[("PGPORT", "x")], "host=h", "PGPORT must be a number");
    check_error_in(&[("PGSSLMODE", "x")], "host=h", "PGSSLMODE must be one of");
    check_error("host=h connect_timeout=5s", "connect_timeout must be a whole number");
    check_error("host=a,b port=1,2,3", "port has 3 entries for 2 hosts");
    check_error("host=a,b hostaddr=127.0.0.1", "host has 2 entries and hostaddr 1");
    check_error("host=a hostaddr=b", "hostaddr must be numeric addresses");
    check_error("host=@abstract", "host must not contain an @");
    check_error("host=a,/b sslmode=require", "sslmode=require cannot hold for a list of hosts with a socket");
    check_error("hostaddr=127.0.0.1 sslmode=verify-full", "needs the name in host");
    check_error("host=h sslmode=require sslrootcert=system", "sslrootcert=system needs sslmode=verify-full");
    check_error("host=h sslnegotiation=direct", "sslnegotiation=direct needs");
    check_error("host=h channel_binding=yes", "channel_binding must be one of disable, prefer, require");
    check_error("host=h target_session_attrs=standby", "target_session_attrs must be one of any, read-write");
    check_error("postgres://[::1/d", "bracket");
    check_error("mysql://h/d", "starts with postgres:// or postgresql://");
    check_error("jdbc:postgresql://h/d?x=y", "starts with postgres:// or postgresql://");
    check_error("mydb", "list of key=value");
    check_error("host='h", "list of key=value");
    check_error("postgres://h/d?options=%00", "zero byte");
    check_error("postgres://h/d?sslmode", "the URL cannot be read");
}

#[test]
fn what_is_not_supported_says_so() {
    for key in ["sslcrl", "sslcrldir", "sslpassword", "service", "krbsrvname", "require_auth", "requirepeer", "gsslib"]
    {
        check_error(&format!("host=h {key}=x"), &format!("{key} is not supported"));
    }
    check_error("host=h gssencmode=require", "gssencmode is not supported except as disable or prefer");
    check_error("host=h client_encoding=latin1", "client_encoding is not supported except as auto or utf8");
    check_error("host=h ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version is not supported except");
    check_error_in(&[("PGSERVICE", "x")], "host=h", "PGSERVICE is not supported");
    check_error_in(&[("PGSSLCRL", "x")], "host=h", "PGSSLCRL is not supported");
}

#[test]
fn a_hard_password_arrives_whole() {
    check(&format!("postgres://u:{ENCODED}@h/d"), &format!("u {SECRET} h:5432 d prefer"));
    check(&format!("postgres://h/d?user=u&password={ENCODED}"), &format!("u {SECRET} h:5432 d prefer"));
    check(&format!("host=h user=u dbname=d password={SECRET}"), &format!("u {SECRET} h:5432 d prefer"));
    check(&format!("host=h user=u password='{SECRET}' dbname=d"), &format!("u {SECRET} h:5432 d prefer"));
    check_in(&[("PGPASSWORD", SECRET)], "host=h user=u dbname=d", &format!("u {SECRET} h:5432 d prefer"));
    // An @ alone is understood raw, as other URL parsers do; libpq would look for a host with an @.
    check("postgres://u:p@ss@h/d", "u p@ss h:5432 d prefer");
    check("postgres://u:p?#:ss@h/d", "u p?#:ss h:5432 d prefer");
}

#[test]
fn no_password_is_ever_shown() {
    let good = [
        format!("postgres://user:{ENCODED}@h:1,i/db"),
        format!("host=h,i port=1,5432 user=user dbname=db password='{SECRET}'"),
    ];
    for text in good {
        let info = parse(&text, &[]).unwrap();
        assert_eq!(info.to_string(), "postgres://user:***@h:1,i:5432/db");
        assert_eq!(format!("{info:?}"), "ConnInfo(postgres://user:***@h:1,i:5432/db sslmode=prefer)");
        assert!(!format!("{:?}", info.config()).contains("w:rd"));
    }
    assert_eq!(parse("host=h user=u", &[]).unwrap().to_string(), "postgres://u@h:5432/u");
    // Each is broken where a password was written carelessly, and holds the words zebra and quagga.
    let broken = [
        "postgres://u:zebra/quagga@h/d",
        "postgres://u:123/zebra@quagga/d",
        "postgres://u:zebra@x/quagga@h/d",
        "postgres://u:zebra@quagga?x@h/d",
        "postgres://u:zebra@x?quagga=x@h/d",
        "postgres://u:zebra@x?quagga=1@h/d?sslmode=1",
        "postgres://u:zebra%quagga@h/d",
        "postgres://u:zebra%zzquagga@h/d",
        "postgres://u:zebra%FFquagga@h/d",
        "postgres://u:zebra%00quagga@h/d",
        "postgres//u:zebra:quagga@h/d",
        "postgress://u:zebra-quagga@h/d?x=y",
        "host=h password=zebra quagga",
        "host=h password=zebra quagga=x",
        "host=h password=zebra quagga = x user=u",
        "host=h password='zebra quagga",
        "host=h password='zebra'quagga=x",
        "host=h port=zebra,quagga,1",
        "host=h sslmode=zebra connect_timeout=quagga",
        "zebra quagga",
    ];
    for text in broken {
        let error = parse(text, &[]).map(|info| info.to_string()).expect_err(text);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("zebra") && !shown.contains("quagga"), "{text}: {shown}");
    }
}

#[test]
fn the_password_file_is_read_as_libpq_does() {
    #[track_caller]
    fn check(line: &str, expected: Option<&str>) {
        assert_eq!(passfile::look_up(line, ["h", "5432", "d", "u"]).as_deref(), expected);
    }
    check("h:5432:d:u:pw", Some("pw"));
    check("*:*:*:*:pw", Some("pw"));
    check("h:5432:*:u:p\\:w\\\\x", Some("p:w\\x"));
    check("h:5432:*:u:pw:rest", Some("pw"));
    check("g:*:*:*:no\nh:*:*:*:yes\n*:*:*:*:late", Some("yes"));
    check("# h:5432:d:u:no\nh:5432:d:u:pw\r\n", Some("pw"));
    check("\\h:5432:d:u:pw", Some("pw"));
    check("\\*:5432:d:u:pw", None);
    check("h:5433:d:u:pw", None);
    check("h:5432:d:u", None);
    check("", None);
}

#[test]
fn the_password_file_stands_in_for_a_password() {
    let home = std::env::temp_dir().join(format!("gw-passfile-{}", std::process::id()));
    fs::create_dir_all(&home).unwrap();
    let file = home.join(".pgpass");
    fs::write(&file, "a:1:d:u:one\nb:*:*:*:two\nlocalhost:*:*:s:three\n/x:*:*:*:four\nc:*:*:*:one\n").unwrap();
    let private = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    private(0o600);
    let (home_text, file_text) = (home.to_str().unwrap(), file.to_str().unwrap());
    let env = [("HOME", home_text)];
    check_in(&env, "postgres://u@a:1/d", "u one a:1 d prefer");
    check_in(&env, "postgres://u:own@a:1/d", "u own a:1 d prefer");
    check_in(&env, "postgres://u@a:2/d", "u - a:2 d prefer");
    check_in(&env, "host=/tmp user=s", "s three /tmp/.s.PGSQL.5432 s disable");
    check_in(&env, "host=/x user=s", "s four /x/.s.PGSQL.5432 s disable");
    check_in(&env, "host=a,c port=1 user=u dbname=d", "u one a:1,c:1 d prefer");
    check_error_in(&env, "host=a,b port=1 user=u dbname=d", "passfile must name the same password");
    check(&format!("host=a port=1 user=u dbname=d passfile='{file_text}'"), "u one a:1 d prefer");
    check_in(&[("PGPASSFILE", file_text)], "host=b user=u", "u two b:5432 u prefer");
    check_in(&[("HOME", "/nowhere")], "host=b user=u", "u - b:5432 u prefer");
    private(0o640);
    check_in(&env, "postgres://u@a:1/d", "u - a:1 d prefer");
    fs::remove_dir_all(&home).unwrap();
}
