// Package postgres describes the PostgreSQL source and destination of a pipeline.
//
// It holds what a document may say about them: SourceConfig and
// DestinationConfig, final in shape and fully validated, so that a document
// written today keeps its meaning.
//
// # Connection
//
// A server is named either by its parts (host, port, user, password, database)
// or by one dsn; the two are never mixed, so nobody has to know which wins. The
// keys of the transport (sslmode, sslrootcert, sslcert, sslkey) and of time
// limits may stand beside both. The password and the dsn are secrets: no method
// of this package repeats them.
//
// # Failure handling
//
// Problems reports everything at once, with the path of each key. It looks at
// the text only: whether a server, a file or a slot exists is a matter of
// preflight.
package postgres
