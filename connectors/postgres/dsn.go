package postgres

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Keys of a dsn, as libpq spells them.
var (
	// dsnUsed are those that go on to pgconn.
	dsnUsed = []string{
		"host", "port", "user", "password", "dbname", "passfile", "connect_timeout", "options", "target_session_attrs",
		"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslsni", "sslcertmode", "sslnegotiation",
		"channel_binding", "require_auth", "krbsrvname", "krbspn", "min_protocol_version", "max_protocol_version",
	}
	// dsnIgnored are those that we decide, or that change nothing that matters here.
	dsnIgnored = []string{
		"application_name", "fallback_application_name", "client_encoding", "keepalives", "keepalives_idle", "keepalives_interval",
		"keepalives_count", "tcp_user_timeout", "gssencmode", "gsslib", "gssdelegation", "sslcompression", "load_balance_hosts",
	}
	// dsnRefused would silently weaken or redirect the connection if they were ignored.
	dsnRefused = []string{
		"hostaddr", "service", "servicefile", "requirepeer", "replication", "sslcrl", "sslcrldir",
		"ssl_min_protocol_version", "ssl_max_protocol_version", "sslkeylogfile",
	}
)

// parseDSN returns the keys of a dsn. Its errors repeat nothing of the text but
// names of keys that libpq has: the rest may be a password.
func parseDSN(text string) (map[string]string, error) {
	var keys map[string]string
	var err error
	if rest, ok := cutScheme(text); ok {
		keys, err = parseURL(rest)
	} else {
		keys, err = parseWords(text)
	}
	if err != nil {
		return nil, err
	}
	if name, ok := keys["database"]; ok { // pgx's spelling
		keys["dbname"] = name
		delete(keys, "database")
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		switch {
		case strings.IndexByte(keys[k], 0) >= 0:
			return nil, errors.New("a value of the dsn holds a NUL byte")
		case slices.Contains(dsnRefused, k):
			return nil, fmt.Errorf("the dsn has the key %s, which is not supported", k)
		case slices.Contains(dsnIgnored, k):
			delete(keys, k)
		case !slices.Contains(dsnUsed, k):
			return nil, errors.New("the dsn has a key that is not one of libpq's; its text is not shown because it may be a part of a password")
		}
	}
	return keys, nil
}

func cutScheme(text string) (string, bool) {
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(text, scheme); ok {
			return rest, true
		}
	}
	return text, false
}

var errDSN = errors.New("the dsn cannot be read; its text is not shown because it may hold a password")

// parseURL parses what follows the scheme: [user[:password]@][host[:port],..][/database][?key=value&..].
func parseURL(text string) (map[string]string, error) {
	keys := make(map[string]string)
	rest, query, _ := strings.Cut(text, "?")
	authority, database, _ := strings.Cut(rest, "/")
	hosts := authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, password, _ := strings.Cut(authority[:at], ":")
		keys["user"], keys["password"] = user, password
		hosts = authority[at+1:]
	}
	keys["dbname"] = database
	keys["host"], keys["port"] = splitHosts(hosts)
	for k, v := range keys {
		plain, err := url.PathUnescape(v)
		if err != nil {
			return nil, errDSN
		}
		if keys[k] = plain; plain == "" {
			delete(keys, k)
		}
	}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		name, err := url.PathUnescape(k)
		value, err2 := url.PathUnescape(v)
		if !ok || err != nil || err2 != nil {
			return nil, errDSN
		}
		if name == "ssl" && value == "true" {
			name, value = "sslmode", "require"
		}
		keys[name] = value
	}
	return keys, nil
}

// splitHosts splits "a:1,[::1]:2,c" into "a,::1,c" and "1,2,"; no port at all is "".
func splitHosts(text string) (hosts, ports string) {
	var names, numbers []string
	for one := range strings.SplitSeq(text, ",") {
		name, number := one, ""
		if end := strings.LastIndexByte(one, ']'); strings.HasPrefix(one, "[") && end > 0 {
			name, number = one[1:end], strings.TrimPrefix(one[end+1:], ":")
		} else if i := strings.LastIndexByte(one, ':'); i >= 0 {
			name, number = one[:i], one[i+1:]
		}
		names, numbers = append(names, name), append(numbers, number)
	}
	hosts, ports = strings.Join(names, ","), strings.Join(numbers, ",")
	return hosts, map[bool]string{true: "", false: ports}[strings.Trim(ports, ",") == ""]
}

// parseWords parses key=value words; a value is quoted with ' where it holds blanks.
func parseWords(text string) (map[string]string, error) {
	keys := make(map[string]string)
	blanks := " \t\n\r\v\f"
	for text = strings.TrimLeft(text, blanks); text != ""; text = strings.TrimLeft(text, blanks) {
		k, rest, ok := strings.Cut(text, "=")
		k = strings.TrimRight(k, blanks)
		if !ok || k == "" || strings.ContainsAny(k, blanks+"'\\") {
			return nil, errDSN
		}
		value, rest, ok := cutValue(strings.TrimLeft(rest, blanks), blanks)
		if !ok {
			return nil, errDSN
		}
		keys[k], text = value, rest
	}
	return keys, nil
}

// cutValue takes a value off the front of text; ok is false when a quote is missing.
func cutValue(text, blanks string) (value, rest string, ok bool) {
	quoted := strings.HasPrefix(text, "'")
	if quoted {
		text = text[1:]
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case quoted && c == '\'':
			return b.String(), text[i+1:], true
		case !quoted && strings.IndexByte(blanks, c) >= 0:
			return b.String(), text[i:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", !quoted
}

// words renders keys as key='value' words.
func words(keys map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		b.WriteString(k + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(keys[k]) + "' ")
	}
	return b.String()
}
