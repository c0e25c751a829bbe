package draft

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// The kinds of an End, as `use:` spells them.
const (
	usePostgres = "postgres"
	useDuckDB   = "duckdb"
	useFile     = "file"
)

// End is one side of a pipeline.
type End struct {
	use     string
	name    string      // of the database or file, for the pipeline's name
	keys    [][2]string // of config, in order; values as the document spells them
	secrets map[string]string
	remark  string   // how the password is found
	same    []string // what tells it from other ends; no secret
}

// Side says which End it is.
type Side string

// The sides; they begin the names of variables.
const (
	SideSource      Side = "SOURCE"
	SideDestination Side = "DEST"
)

// flag is the option that gave the side.
func (s Side) flag() string {
	if s == SideSource {
		return "--from"
	}
	return "--to"
}

// Parse understands a URI. Its error is a messages.Failure and repeats nothing of the
// URI, which may hold a password.
func Parse(side Side, uri string) (End, error) {
	scheme, rest, ok := strings.Cut(uri, ":")
	switch scheme = strings.ToLower(scheme); {
	case ok && (scheme == "postgres" || scheme == "postgresql"):
		return postgresEnd(side, uri)
	case ok && scheme == useDuckDB:
		return pathEnd(side, useDuckDB, rest, nil)
	case ok && scheme == useFile:
		return pathEnd(side, useFile, rest, []string{"format", "compression"})
	}
	return End{}, refused(side, "it begins with no scheme that is known")
}

func refused(side Side, why string) error {
	return messages.Failure{
		Code: messages.CodeUsage, Kind: string(connectors.KindConfig), What: side.flag() + " is not understood", Why: why,
		Next: "Give postgres://user@host:5432/database, duckdb:PATH, or file:PATH?format=parquet.",
	}
}

// pathEnd is an end that is a file or folder: taken as it is, nothing is decoded.
func pathEnd(side Side, use, rest string, options []string) (End, error) {
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		rest = after
	}
	path, query, _ := strings.Cut(rest, "?")
	if path == "" {
		return End{}, refused(side, "the path is missing")
	}
	e := End{use: use, keys: [][2]string{{"path", scalar(path)}}, same: []string{use, filepath.Clean(path)}}
	if abs, err := filepath.Abs(path); err == nil {
		e.same[1] = abs
	}
	base := filepath.Base(path)
	e.name = strings.TrimSuffix(base, filepath.Ext(base))
	values, err := url.ParseQuery(query)
	if err != nil {
		return End{}, refused(side, "what follows the question mark is not key=value")
	}
	for key := range values {
		if !slices.Contains(options, key) {
			return End{}, refused(side, "it has an option that means nothing here; known are: "+cmp.Or(strings.Join(options, ", "), "none"))
		}
	}
	for _, key := range options {
		if v := values.Get(key); v != "" {
			e.keys = append(e.keys, [2]string{key, scalar(v)})
		}
	}
	return e, nil
}

// partsOnly are the options of a URI that have keys in a document.
var partsOnly = []string{"host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey"}

func postgresEnd(side Side, uri string) (End, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Fragment != "" { // the error repeats the URI
		return End{}, refused(side, "it is not a URI: characters such as @ / # and % in a password are written %40 %2F %23 and %25")
	}
	q := u.Query()
	password, has := u.User.Password()
	if !has && q.Has("password") {
		password, has = q.Get("password"), true
	}
	e := End{use: usePostgres, secrets: map[string]string{}}
	database := cmp.Or(strings.TrimPrefix(u.Path, "/"), q.Get("dbname"))
	user := cmp.Or(u.User.Username(), q.Get("user"))
	host, port := cmp.Or(u.Hostname(), q.Get("host")), cmp.Or(u.Port(), q.Get("port"))
	e.name = cmp.Or(database, user, usePostgres)
	e.same = []string{usePostgres, host, cmp.Or(port, "5432"), database}
	odd := host == "" || user == "" || database == "" || strings.Contains(host, ",") || strings.Contains(u.Host, ",")
	for key := range q {
		odd = odd || !slices.Contains(partsOnly, key)
	}
	set := func(key, value string) {
		if value != "" {
			e.keys = append(e.keys, [2]string{key, scalar(value)})
		}
	}
	switch {
	case odd && (has || q.Has("sslpassword")):
		name := string(side) + "_URL"
		e.secrets[name] = uri
		e.keys = append(e.keys, [2]string{"dsn", "${" + name + "}"})
		e.remark = "set " + name + " to the URI"
		return e, nil
	case odd:
		set("dsn", uri)
		e.remark = "the password is taken from .pgpass"
		return e, nil
	}
	set("host", host)
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		port = strconv.FormatUint(n, 10)
		e.keys = append(e.keys, [2]string{"port", port})
	} else if port != "" {
		return End{}, refused(side, "the port is no number up to 65535")
	}
	set("user", user)
	e.remark = "no password: .pgpass is looked at"
	if has {
		name := string(side) + "_PASSWORD"
		e.secrets[name] = password
		e.keys = append(e.keys, [2]string{"password", "${" + name + "}"})
		e.remark = "set " + name + " to the password"
	}
	set("database", database)
	for _, key := range partsOnly[2:] {
		set(key, q.Get(key))
	}
	return e, nil
}

// PipelineName is the same for the same two ends: a copy that is run again goes on
// where it was.
func PipelineName(from, to End, schema string) messages.PipelineID {
	h := sha256.Sum256([]byte(strings.Join(slices.Concat(from.same, []string{"to"}, to.same, []string{schema}), "\x00")))
	return messages.PipelineID("copy_" + string(ShortName(from, to)) + "_" + hex.EncodeToString(h[:4]))
}

// ShortName names a pipeline for a person.
func ShortName(from, to End) messages.PipelineID {
	return messages.PipelineID(word(from.name) + "_to_" + word(to.name))
}

// word makes a name fit into that of a pipeline.
func word(s string) string {
	const most = 40
	clean := strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(s))
	return cmp.Or(strings.Trim(clean[:min(len(clean), most)], "_-"), "data")
}
