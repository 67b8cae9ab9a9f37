use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::error::ErrorKind;

const SECRET: &str = "p@ss/w:rd?#%";
const ENCODED: &str = "p%40ss%2Fw%3Ard%3F%23%25";

fn parse(text: &str, env: &[(&str, &str)]) -> Result<ConnInfo> {
    ConnInfo::parse(text, &|name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
}

/// Compares `user password hosts dbname sslmode`, with `-` for no password, or one password for each host if they
/// differ.
#[track_caller]
fn check_in(env: &[(&str, &str)], text: &str, expected: &str) {
    let info = parse(text, env).unwrap();
    let config = info.config.clone();
    let passwords: Vec<_> = info.servers.iter().map(|s| s.password.as_deref().unwrap_or("-")).collect();
    let password =
        if passwords.iter().all(|p| *p == passwords[0]) { passwords[0].to_owned() } else { passwords.join(",") };
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
fn the_environment_fills_what_the_string_leaves_open() {
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
    // An empty value in the string means libpq's default, not the variable's value.
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
fn session_parameters_reach_the_config() {
    let info = parse("host=h", &[]).unwrap();
    let config = info.config(&info.servers[0], None, "test");
    assert_eq!(config.get_connect_timeout(), None);
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(30)));
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(30));
    assert!(config.get_keepalives());
    assert_eq!(config.get_channel_binding(), ChannelBinding::Prefer);

    let text = "host=h connect_timeout=3 tcp_user_timeout=1500 keepalives=0 keepalives_idle=5 keepalives_interval=6 \
                keepalives_count=7 target_session_attrs=read-write load_balance_hosts=random channel_binding=require \
                application_name=me options='-c statement_timeout=5' sslmode=require sslnegotiation=direct";
    let info = parse(text, &[("PGCONNECT_TIMEOUT", "99")]).unwrap();
    let config = info.config(&info.servers[0], None, "test");
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
    assert!(!config.get_keepalives());
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(5));
    assert_eq!(config.get_keepalives_interval(), Some(Duration::from_secs(6)));
    assert_eq!(config.get_keepalives_retries(), Some(7));
    assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    assert_eq!(config.get_load_balance_hosts(), LoadBalanceHosts::Random);
    assert_eq!(config.get_channel_binding(), ChannelBinding::Require);
    assert_eq!(config.get_application_name(), Some("me graphile-worker:test"));
    assert_eq!(config.get_options(), Some("-c statement_timeout=5"));
    assert_eq!(config.get_ssl_negotiation(), SslNegotiation::Direct);

    let info = parse("host=h connect_timeout=0 tcp_user_timeout=0", &[]).unwrap();
    assert_eq!(info.connect_timeout(), None);
    assert_eq!(info.config.get_tcp_user_timeout(), None);
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
    check_error("host=a,/b sslmode=require", "sslmode=require cannot be used for a list of hosts with a socket");
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
fn unsupported_parameters_are_refused() {
    for key in ["sslcrl", "sslcrldir", "sslpassword", "krbsrvname", "require_auth", "gsslib"] {
        check_error(&format!("host=h {key}=x"), &format!("{key} is not supported"));
    }
    check_error("host=/s requirepeer=x", "requirepeer is not supported: remove it, and let only the server's user");
    check_error("host=h,/s requirepeer=x", "requirepeer is not supported");
    check_error("host=h gssencmode=require", "gssencmode is not supported except as disable or prefer");
    check_error("host=h client_encoding=latin1", "client_encoding is not supported except as auto or utf8");
    check_error("host=h ssl_min_protocol_version=SSLv3", "ssl_min_protocol_version must be one of");
    check_error_in(&[("PGREQUIREPEER", "x")], "host=/s", "PGREQUIREPEER is not supported");
    check_error_in(&[("PGCLIENTENCODING", "LATIN1")], "host=h", "PGCLIENTENCODING is not supported except as auto");
    check_error("host=h sslcertmode=require", "sslcertmode must be one of allow, disable");
    check_error("host=h ssl_max_protocol_version=TLSv1.1", "ssl_max_protocol_version must be one of TLSv1.2, TLSv1.3");
    check_error("host=h ssl_max_protocol_version=TLSv1.2 ssl_min_protocol_version=TLSv1.3", "is above");
    check_error_in(&[("PGSSLCRL", "x")], "host=h", "PGSSLCRL is not supported");
}

#[test]
fn a_password_with_special_characters_is_read_whole() {
    check(&format!("postgres://u:{ENCODED}@h/d"), &format!("u {SECRET} h:5432 d prefer"));
    check(&format!("postgres://h/d?user=u&password={ENCODED}"), &format!("u {SECRET} h:5432 d prefer"));
    check(&format!("host=h user=u dbname=d password={SECRET}"), &format!("u {SECRET} h:5432 d prefer"));
    check(&format!("host=h user=u password='{SECRET}' dbname=d"), &format!("u {SECRET} h:5432 d prefer"));
    check_in(&[("PGPASSWORD", SECRET)], "host=h user=u dbname=d", &format!("u {SECRET} h:5432 d prefer"));
    // An @ alone is accepted unencoded, as by other URL parsers. libpq would look for a host with an @.
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
        assert!(!format!("{:?}", info.config(&info.servers[0], None, "test")).contains("w:rd"));
    }
    assert_eq!(parse("host=h user=u", &[]).unwrap().to_string(), "postgres://u@h:5432/u");
    // Each string is broken where a password is written carelessly, and contains the words zebra and quagga.
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
fn the_password_file_replaces_a_missing_password() {
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
    // A server receives no password of another server.
    check_in(&env, "host=a,b,d port=1 user=u dbname=d", "u one,two,- a:1,b:1,d:1 d prefer");
    check(&format!("host=a port=1 user=u dbname=d passfile='{file_text}'"), "u one a:1 d prefer");
    check_in(&[("PGPASSFILE", file_text)], "host=b user=u", "u two b:5432 u prefer");
    check_in(&[("HOME", "/nowhere")], "host=b user=u", "u - b:5432 u prefer");
    private(0o640);
    check_in(&env, "postgres://u@a:1/d", "u - a:1 d prefer");
    fs::remove_dir_all(&home).unwrap();
}

#[test]
fn parameters_that_libpq_ignores_are_ignored() {
    check("host=h user=u requirepeer=x", "u - h:5432 u prefer");
    check_in(&[("PGREQUIREPEER", "x")], "postgres://u@h/d", "u - h:5432 d prefer");
    check_in(&[("PGSSLCRL", "x")], "host=/s user=u", "u - /s/.s.PGSQL.5432 u disable");
    check_in(&[("PGSSLCRLDIR", "x")], "host=h user=u sslmode=disable", "u - h:5432 u disable");
}

#[test]
fn requiressl_is_translated_as_by_libpq() {
    check("host=h user=u requiressl=1", "u - h:5432 u require");
    check("host=h user=u requiressl=0", "u - h:5432 u prefer");
    check_in(&[("PGREQUIRESSL", "1")], "host=h user=u", "u - h:5432 u require");
    check_in(&[("PGREQUIRESSL", "1")], "host=h user=u sslmode=disable", "u - h:5432 u disable");
}

#[test]
fn sessions_are_named_after_the_application_and_their_role() {
    #[track_caller]
    fn check(text: &str, env: &[(&str, &str)], expected: &str) {
        let info = parse(text, env).unwrap();
        let config = info.config(&info.servers[0], None, "fetch");
        assert_eq!(config.get_application_name(), Some(expected));
        assert!(expected.len() <= 63);
    }
    check("host=h", &[], "graphile-worker:fetch");
    check("postgres://h/d?application_name=myapp", &[], "myapp graphile-worker:fetch");
    check("host=h", &[("PGAPPNAME", "env")], "env graphile-worker:fetch");
    check("host=h application_name=own", &[("PGAPPNAME", "env")], "own graphile-worker:fetch");
    check("host=h fallback_application_name=last", &[], "last graphile-worker:fetch");
    check("host=h fallback_application_name=last", &[("PGAPPNAME", "env")], "env graphile-worker:fetch");
    check(
        &format!("host=h application_name={}", "n".repeat(63)),
        &[],
        &format!("{} graphile-worker:fetch", "n".repeat(41)),
    );
    check("host=h application_name='Größe\t1'", &[], "Gr??e?1 graphile-worker:fetch");
}

#[test]
fn variables_for_settings_reach_the_session() {
    let env = [("PGTZ", "Europe/Berlin"), ("PGDATESTYLE", "sql, dmy"), ("PGGEQO", "default")];
    let options = |text: &str| parse(text, &env).unwrap().config.get_options().unwrap().to_owned();
    assert_eq!(options("host=h"), r"-c datestyle=sql,\ dmy -c timezone=Europe/Berlin");
    assert_eq!(
        options("host=h options='-c geqo=off'"),
        r"-c geqo=off -c datestyle=sql,\ dmy -c timezone=Europe/Berlin"
    );
}

#[test]
fn a_service_fills_what_the_connection_string_leaves_open() {
    let home = std::env::temp_dir().join(format!("gw-service-{}", std::process::id()));
    fs::create_dir_all(home.join("system")).unwrap();
    let (named, system) = (home.join("named.conf"), home.join("system"));
    fs::write(
        home.join(".pg_service.conf"),
        "# all\n[prod]\n  host=p  \nport=7\nport=8\nuser=pu\npassword=a = b\nsslmode=require\n\n[bad]\nhots=x\n\
         [worse]\nhost\n[nested]\nservice=prod\n[tree]\nldap://x\n[port]\nport=zebra\n",
    )
    .unwrap();
    fs::write(&named, "[other]\nhost=n\n").unwrap();
    fs::write(system.join("pg_service.conf"), "[all]\nhost=s\nuser=su\n[prod]\nhost=not-this\n").unwrap();
    let (home_text, named_text) = (home.to_str().unwrap(), named.to_str().unwrap());
    let own = [("HOME", home_text), ("PGSYSCONFDIR", system.to_str().unwrap())];
    let with = |more: &[(&'static str, &'static str)]| [&own[..], more].concat();
    check_in(&own, "service=prod", "pu a = b p:7 pu require");
    check_in(&own, "postgres:///d?service=prod", "pu a = b p:7 d require");
    check_in(&with(&[("PGSERVICE", "prod"), ("PGPORT", "9"), ("PGDATABASE", "ed")]), "", "pu a = b p:7 ed require");
    // With a complete URL, the service decides only what the URL leaves open.
    check_in(&with(&[("PGSERVICE", "prod")]), "postgres://u:p@h:1/d", "u p h:1 d require");
    check_in(&own, "service=all", "su - s:5432 su prefer");
    let file = [("PGSERVICEFILE", named_text), ("PGSYSCONFDIR", system.to_str().unwrap()), ("HOME", home_text)];
    check_in(&file, "service=other user=u", "u - n:5432 u prefer");
    check_in(&file, "service=all", "su - s:5432 su prefer");
    check_in(&own, &format!("service=other servicefile='{named_text}' user=u"), "u - n:5432 u prefer");
    check_in(&with(&[("PGSERVICE", "")]), "host=h user=u", "u - h:5432 u prefer");

    check_error_in(&own, "service=gone", "definition of service \"gone\" not found");
    check_error_in(&with(&[("PGSERVICE", "gone")]), "postgres://u:p@h:1/d", "definition of service \"gone\" not found");
    check_error_in(&[("PGSERVICEFILE", "/nowhere/s")], "service=prod", "service file \"/nowhere/s\" not found");
    check_error_in(&own, "service=bad", "unknown parameter in service file");
    check_error_in(&own, "service=worse", "line 13");
    check_error_in(&own, "service=nested", "nested service specifications");
    check_error_in(&own, "service=tree", "LDAP");
    check_error_in(&own, "service=port", "port of service \"port\" in");
    let error = parse("service=port", &own).map(|info| info.to_string()).unwrap_err();
    assert!(!error.to_string().contains("zebra"), "{error}");
    fs::remove_dir_all(&home).unwrap();
}

/// Every parameter of libpq, and every variable, in PostgreSQL 12 to 18.
const OF_LIBPQ: &str = "
    service PGSERVICE, servicefile PGSERVICEFILE, host PGHOST, hostaddr PGHOSTADDR, port PGPORT, dbname PGDATABASE, user PGUSER,
    password PGPASSWORD, passfile PGPASSFILE, require_auth PGREQUIREAUTH, channel_binding PGCHANNELBINDING,
    connect_timeout PGCONNECT_TIMEOUT, client_encoding PGCLIENTENCODING, options PGOPTIONS, application_name PGAPPNAME,
    fallback_application_name, keepalives, keepalives_idle, keepalives_interval, keepalives_count, tcp_user_timeout,
    replication, gssencmode PGGSSENCMODE, sslmode PGSSLMODE, requiressl PGREQUIRESSL, sslnegotiation PGSSLNEGOTIATION,
    sslcompression PGSSLCOMPRESSION, sslcert PGSSLCERT, sslkey PGSSLKEY, sslkeylogfile, sslpassword,
    sslcertmode PGSSLCERTMODE, sslrootcert PGSSLROOTCERT, sslcrl PGSSLCRL, sslcrldir PGSSLCRLDIR, sslsni PGSSLSNI,
    requirepeer PGREQUIREPEER, ssl_min_protocol_version PGSSLMINPROTOCOLVERSION,
    ssl_max_protocol_version PGSSLMAXPROTOCOLVERSION, min_protocol_version PGMINPROTOCOLVERSION,
    max_protocol_version PGMAXPROTOCOLVERSION, krbsrvname PGKRBSRVNAME, gsslib PGGSSLIB, gssdelegation PGGSSDELEGATION,
    scram_client_key, scram_server_key, target_session_attrs PGTARGETSESSIONATTRS,
    load_balance_hosts PGLOADBALANCEHOSTS, oauth_issuer, oauth_client_id, oauth_client_secret, oauth_scope,
    authtype PGAUTHTYPE, tty PGTTY";

/// The variables of libpq without a parameter.
const ONLY_VARIABLES: [&str; 7] =
    ["PGDATESTYLE", "PGTZ", "PGGEQO", "PGSYSCONFDIR", "PGLOCALEDIR", "PGOAUTHDEBUG", "PGOAUTHCAFILE"];

#[test]
fn every_libpq_parameter_is_treated_as_in_the_manual() {
    let manual = include_str!("../../../docs/connecting.md");
    let rows: HashMap<&str, &str> =
        manual.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | ")).collect();
    let row = |name: &str, variable: &str| {
        let both = format!("{name}` | `{variable}`");
        let key = if name.is_empty() { variable } else { name };
        let start = rows.get(format!("{key}`").as_str()).copied().unwrap_or_default();
        let full = format!("{key}` | {start}");
        let rest = match (name, variable) {
            ("", _) => Some(start.to_owned()),
            (_, "") => full.strip_prefix(&format!("{name}` |  | ")).map(str::to_owned),
            _ => full.strip_prefix(&format!("{both} | ")).map(str::to_owned),
        };
        rest.unwrap_or_else(|| panic!("docs/connecting.md has no row for {name} {variable}: {full}"))
    };
    let known: Vec<(&str, &str)> =
        OF_LIBPQ.split(',').map(|pair| pair.trim().split_once(' ').unwrap_or((pair.trim(), ""))).collect();
    let ours: Vec<(&str, &str)> = PARAMETERS.iter().map(|p| (p.name, p.variable)).collect();
    for pair in &known {
        assert!(ours.contains(pair), "{pair:?} is neither honoured nor refused");
    }
    assert_eq!(known.len(), ours.len());
    for parameter in PARAMETERS {
        let documented = row(parameter.name, parameter.variable);
        let expected = match &parameter.rule {
            Rule::Used => "honoured".to_owned(),
            Rule::Only([], _) => "refused".to_owned(),
            Rule::Only(values, _) => format!("refused except as `{}`", values.join("`, `")),
            Rule::NotWithTls(_) => "refused where TLS is spoken".to_owned(),
            Rule::NotOnSockets(_) => "refused on Unix sockets".to_owned(),
        };
        assert!(
            documented.starts_with(&expected),
            "{}: the manual has {documented:?} and not {expected:?}",
            parameter.name
        );
        // The error names the parameter, or the variable if that was set.
        if !matches!(parameter.rule, Rule::Used) {
            let host = if matches!(parameter.rule, Rule::NotOnSockets(_)) { "/s" } else { "h" };
            check_error(
                &format!("host={host} {}=zebra", parameter.name),
                &format!("{} is not supported", parameter.name),
            );
            if !parameter.variable.is_empty() {
                let env = [(parameter.variable, "zebra")];
                check_error_in(&env, &format!("host={host}"), &format!("{} is not supported", parameter.variable));
            }
        }
    }
    for variable in ONLY_VARIABLES {
        assert!(!row("", variable).is_empty(), "{variable}");
    }
}
