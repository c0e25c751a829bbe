package postgres

import (
	"cmp"
	"net"
	"strings"

	"rapidbyte.io/node/connectors"
)

// SameDatabase reports whether both configs lead to one database, as far as their texts
// tell: two names of one server are not recognised.
func SameDatabase(s SourceConfig, d DestinationConfig) bool {
	from, okFrom := database(s.Connection)
	to, okTo := database(d.Connection)
	return okFrom && okTo && from == to
}

// database returns host, port and name of the database of c.
func database(c Connection) (at [3]string, ok bool) {
	d, err := newDialer(c, connectors.StageSource)
	if err != nil {
		return at, false
	}
	host := strings.ToLower(cmp.Or(d.keys["host"], d.keys["hostaddr"]))
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsLoopback() {
		host = "localhost"
	}
	return [3]string{host, cmp.Or(d.keys["port"], "5432"), cmp.Or(d.keys["dbname"], d.keys["user"])}, true
}
