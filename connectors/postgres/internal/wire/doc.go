// Package wire moves rows over a connection to PostgreSQL: its own loop of the
// frontend/backend protocol, version 3, on a connection that pgconn has
// established. It knows bytes and messages, no columns.
//
// # Ownership
//
// A Conn belongs to one goroutine at a time; a call beside another is refused.
// Only Close, Broken, PID and Parameter may be called at any time. Between CopyIn
// and the end of the copy the Conn belongs to the CopyIn. Each copy in has one
// goroutine of its own, which reads what the server says while we write: a trigger
// that raises a million notices would otherwise block both sides. Close waits for
// it.
//
// # Failure handling
//
// A statement that the server refuses is a *pgconn.PgError and the connection stays
// usable. Everything else ends the connection: a *LostError when bytes could not be
// moved, a *ProtocolError when the server says what the protocol does not have
// there. What the server said before it closed the connection, as an error or as
// the warning of a server that shuts down at once, is the error; that the
// connection is gone is then no news. A context that ends during a call ends the
// connection too, and the server is asked to cancel what it does.
//
// Memory is bounded by the buffer of reads and one message, at most 1 GiB, and
// grows with the bytes that arrive, never with what a length word promises.
package wire
