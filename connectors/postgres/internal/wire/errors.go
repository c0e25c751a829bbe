package wire

import (
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Misuse of a connection. None of them reaches the server.
var (
	ErrBusy   = errors.New("another call uses the connection")
	ErrClosed = errors.New("the connection is closed")
	ErrEnded  = errors.New("the copy has ended")
)

// LostError says that bytes could not be moved: the connection is gone.
type LostError struct {
	Op  string // "read" or "write"
	Err error
}

// Error implements error.
func (e *LostError) Error() string {
	if errors.Is(e.Err, io.EOF) {
		return "the server closed the connection"
	}
	return "the connection to the server is lost: " + e.Op + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

// ProtocolError says that the server, or something between, does not speak the
// protocol as it is written.
type ProtocolError struct {
	Type byte // of the message
	Why  string
}

// Error implements error.
func (e *ProtocolError) Error() string { return fmt.Sprintf("protocol: message %q: %s", e.Type, e.Why) }

func unexpected(typ byte, during string) error {
	return &ProtocolError{Type: typ, Why: "not expected during " + during}
}

// serverError decodes an ErrorResponse or a NoticeResponse.
func serverError(typ byte, body []byte) (*pgconn.PgError, error) {
	var m pgproto3.ErrorResponse
	if err := m.Decode(body); err != nil {
		return nil, &ProtocolError{Type: typ, Why: "its fields do not end"}
	}
	return pgconn.ErrorResponseToPgError(&m), nil
}

// fatal reports whether the server closes the connection after e.
func fatal(e *pgconn.PgError) bool {
	severity := e.SeverityUnlocalized
	if severity == "" {
		severity = e.Severity
	}
	return severity == "FATAL" || severity == "PANIC"
}

// farewell reports whether a notice is the last that a server says: one that is
// shut down at once, or whose neighbour crashed, does not take the time for an error.
func farewell(e *pgconn.PgError) bool {
	return e.Code == "57P01" || e.Code == "57P02" || e.Code == "57P03"
}

// both keeps the first cause beside what followed from it.
func both(first, err error) error {
	if first == nil {
		return err
	}
	return errors.Join(first, err)
}
