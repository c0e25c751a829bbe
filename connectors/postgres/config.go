package postgres

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"rapidbyte.io/node/connectors"
)

// Connection names a server and the way to it. Zero values are those of the tags.
type Connection struct {
	Host     string            `yaml:"host" jsonschema_description:"Host name, address, or folder of a unix socket."`
	Port     int               `yaml:"port" jsonschema:"minimum=1,maximum=65535,default=5432" jsonschema_description:"TCP port."`
	User     string            `yaml:"user" jsonschema_description:"Role to log in as."`
	Password connectors.Secret `yaml:"password" jsonschema_description:"Password of the role."`
	Database string            `yaml:"database" jsonschema_description:"Database to connect to."`
	DSN      connectors.Secret `yaml:"dsn" jsonschema_description:"postgres:// URL or key=value text, instead of host, user, password and database."`

	SSLMode     string `yaml:"sslmode" jsonschema:"enum=disable,enum=allow,enum=prefer,enum=require,enum=verify-ca,enum=verify-full" jsonschema_description:"As in libpq; default what the dsn says, then prefer."`
	SSLRootCert string `yaml:"sslrootcert" jsonschema_description:"File of the certificates that may sign the server's."`
	SSLCert     string `yaml:"sslcert" jsonschema_description:"File of the client's certificate."`
	SSLKey      string `yaml:"sslkey" jsonschema_description:"File of the client's key."`

	ConnectTimeout   time.Duration `yaml:"connect_timeout" jsonschema:"default=10s" jsonschema_description:"Time to establish a connection."`
	LockTimeout      time.Duration `yaml:"lock_timeout" jsonschema:"default=30s" jsonschema_description:"Time to wait for a lock before the holder is named."`
	StatementTimeout time.Duration `yaml:"statement_timeout" jsonschema:"default=0s" jsonschema_description:"Time for one statement; 0 is no limit."`
}

// SourceConfig configures the source.
type SourceConfig struct {
	Connection `yaml:",inline"`

	Schema          string `yaml:"schema" jsonschema:"default=public" jsonschema_description:"Schema of streams without one, and of discovery."`
	ReplicationSlot string `yaml:"replication_slot" jsonschema_description:"Slot of cdc; default rapidbyte_<pipeline>."`
	Publication     string `yaml:"publication" jsonschema_description:"Publication of cdc; default rapidbyte_<pipeline>."`

	FetchRows   int                 `yaml:"fetch_rows" jsonschema:"minimum=1,maximum=1048576,default=16384" jsonschema_description:"Rows that are fetched at a time."`
	FetchBytes  connectors.ByteSize `yaml:"fetch_bytes" jsonschema:"minimum=64kb,default=8mb" jsonschema_description:"Bytes that are fetched at a time."`
	ReadTimeout time.Duration       `yaml:"read_timeout" jsonschema:"default=0s" jsonschema_description:"Time without a byte from the server that ends a read; 0 is no limit."`

	AsText []string `yaml:"as_text" jsonschema_description:"Types such as timestamptz, or columns as table.column or schema.table.column, that travel as text: for values that Arrow cannot hold."`
}

// LoadMethod says how rows reach the server.
type LoadMethod string

// The load methods.
const (
	LoadCopy   LoadMethod = "copy"
	LoadInsert LoadMethod = "insert"
)

// Swap says how a replace becomes visible.
type Swap string

// The ways.
const (
	SwapAuto   Swap = "auto"   // rename, unless views or foreign keys depend on the table
	SwapRename Swap = "rename" // a new table takes the name
	SwapMVCC   Swap = "mvcc"   // delete and insert: exact for every snapshot, and bloat
)

// DestinationConfig configures the destination.
type DestinationConfig struct {
	Connection `yaml:",inline"`

	Schema         string              `yaml:"schema" jsonschema:"default=public" jsonschema_description:"Schema of the targets; created when missing."`
	LoadMethod     LoadMethod          `yaml:"load_method" jsonschema:"enum=copy,enum=insert,default=copy" jsonschema_description:"How rows reach the server."`
	CopyFlushBytes connectors.ByteSize `yaml:"copy_flush_bytes" jsonschema:"minimum=4kb,maximum=1gb" jsonschema_description:"Bytes that are collected before they are sent; default as many as the size of the rows asks for."`
	Swap           Swap                `yaml:"swap" jsonschema:"enum=auto,enum=rename,enum=mvcc,default=auto" jsonschema_description:"How a replace becomes visible."`
}

// identifierMax is the longest name that PostgreSQL keeps whole, in bytes.
const identifierMax = 63

var slotShape = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Problems reports everything that is wrong with c.
func (c SourceConfig) Problems() []connectors.Problem {
	p := c.problems()
	p = append(p, identifier("schema", c.Schema)...)
	if c.ReplicationSlot != "" && !slotShape.MatchString(c.ReplicationSlot) {
		p = append(p, connectors.Problem{Path: "replication_slot", Message: fmt.Sprintf("found %q, expected 1 to 63 characters of a-z, 0-9 and _", c.ReplicationSlot)})
	}
	if c.Publication != "" {
		p = append(p, identifier("publication", c.Publication)...)
	}
	for i, entry := range c.AsText {
		if strings.TrimSpace(entry) == "" {
			p = append(p, connectors.Problem{Path: fmt.Sprintf("as_text[%d]", i), Message: "the entry is empty, expected a type such as timestamptz, or a column such as orders.paid_at"})
		}
	}
	return append(p, notNegative("read_timeout", c.ReadTimeout)...)
}

// Problems reports everything that is wrong with c.
func (c DestinationConfig) Problems() []connectors.Problem {
	p := append(c.problems(), identifier("schema", c.Schema)...)
	if slices.Contains([]string{"pg_catalog", "information_schema", "_rapidbyte"}, c.Schema) {
		p = append(p, connectors.Problem{Path: "schema", Message: fmt.Sprintf("found %q, which is reserved", c.Schema)})
	}
	return p
}

// problems never repeats a secret, nor a host, which may hold a whole URL by mistake.
func (c Connection) problems() []connectors.Problem {
	var p []connectors.Problem
	add := func(path, message string) { p = append(p, connectors.Problem{Path: path, Message: message}) }
	if c.DSN.IsZero() {
		for _, part := range []struct{ path, value, what string }{
			{"host", c.Host, "host name, address, or folder of a unix socket"},
			{"user", c.User, "role to log in as"},
			{"database", c.Database, "database to connect to"},
		} {
			if part.value == "" {
				add(part.path, "the key `"+part.path+"` is missing, expected the "+part.what+", or a dsn instead of the parts")
			}
		}
	} else {
		if c.Host != "" || c.User != "" || c.Database != "" || !c.Password.IsZero() {
			add("dsn", "a dsn stands instead of host, user, password and database, expected one or the other")
		}
		if !isDSN(c.DSN.Reveal()) {
			add("dsn", "expected postgres://user@host:5432/database or key=value words; the text is not shown because it may hold a password")
		}
	}
	switch {
	case strings.Contains(c.Host, "://"):
		add("host", "found a URL, expected a host name; a URL belongs into `dsn`")
	case strings.ContainsFunc(c.Host, func(r rune) bool { return r <= ' ' || r == '@' || r == ',' }):
		add("host", "expected one host name, address or folder, without blanks, @ and commas")
	}
	if (c.SSLCert == "") != (c.SSLKey == "") {
		add("sslcert", "sslcert and sslkey belong together, expected both or none")
	}
	if c.SSLMode == "disable" && (c.SSLRootCert != "" || c.SSLCert != "") {
		add("sslmode", "found disable beside certificates, expected a mode that uses them such as verify-full")
	}
	p = append(p, notNegative("connect_timeout", c.ConnectTimeout)...)
	p = append(p, notNegative("lock_timeout", c.LockTimeout)...)
	return append(p, notNegative("statement_timeout", c.StatementTimeout)...)
}

// isDSN reports whether s has one of the two forms that libpq takes.
func isDSN(s string) bool {
	if strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://") {
		u, err := url.Parse(s)
		return err == nil && u.Fragment == ""
	}
	return keyValueShape.MatchString(s)
}

// keyValueShape is a sequence of key=value, values quoted with ' where they hold blanks.
var keyValueShape = regexp.MustCompile(`^\s*([a-z_]+\s*=\s*('([^'\\]|\\.)*'|[^\s'\\]([^\s\\]|\\.)*|)\s*)+$`)

func identifier(path, name string) []connectors.Problem {
	switch {
	case strings.TrimSpace(name) == "":
		return []connectors.Problem{{Path: path, Message: "the name is empty, expected an identifier"}}
	case len(name) > identifierMax:
		return []connectors.Problem{{Path: path, Message: fmt.Sprintf("the name has %d bytes, expected at most %d", len(name), identifierMax)}}
	case strings.ContainsRune(name, 0) || !utf8.ValidString(name):
		return []connectors.Problem{{Path: path, Message: "the name holds bytes that no identifier can have"}}
	}
	return nil
}

func notNegative(path string, d time.Duration) []connectors.Problem {
	if d >= 0 {
		return nil
	}
	return []connectors.Problem{{Path: path, Message: fmt.Sprintf("found %s, expected no negative duration", d)}}
}
