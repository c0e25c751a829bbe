package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/wire"
	"rapidbyte.io/node/messages"
)

// verdict is what an error means: its Kind, its Code and what to do.
type verdict struct {
	kind connectors.Kind
	code codes
	next string
}

// codes are the names of one case, by the side on which it happens.
type codes struct{ source, dest messages.Code }

var (
	isFailed   = codes{messages.CodeSource, messages.CodeDest}
	isMissing  = codes{messages.CodeSourceMissing, messages.CodeDestMissing}
	isDenied   = codes{messages.CodeSourceDenied, messages.CodeDestDenied}
	isFull     = codes{messages.CodeSource, messages.CodeDestFull}
	isBusy     = codes{messages.CodeSource, messages.CodeDestBusy}
	isValue    = codes{messages.CodeRowBroken, messages.CodeValueRange}
	isRefused  = codes{messages.CodeRowBroken, messages.CodeRowRefused}
	isColumn   = codes{messages.CodeSchemaColumn, messages.CodeSchemaColumn}
	isType     = codes{messages.CodeSchemaType, messages.CodeSchemaType}
	isInternal = codes{messages.CodeInternal, messages.CodeInternal}
)

func (c codes) of(stage string) messages.Code {
	if stage == connectors.StageDestination {
		return c.dest
	}
	return c.source
}

// classify turns an error of the server, of the network or of the way to it into
// one that says what to do. It leaves typed errors as they are, and the end of a
// context its cause. CommitUnknown is the caller's to add.
func classify(ctx context.Context, stage, op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*connectors.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*connectors.FencedError](err); ok {
		return err
	}
	if ctx.Err() != nil {
		if errors.Is(err, context.Cause(ctx)) {
			return err
		}
		e, refused := errors.AsType[*pgconn.PgError](err)
		if errors.Is(err, ctx.Err()) || pgconn.Timeout(err) || refused && e.Code == "57014" { // cancelled by us
			return fmt.Errorf("%s: %w: %w", op, context.Cause(ctx), err)
		}
	}
	out := &connectors.Error{Op: op, Err: err}
	v := judge(stage, err)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		out.Err = &refusal{err: err, text: refusalText(err, e)}
		out.Place = placeOf(e)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		out.Err = &refusal{err: err, text: oneLine(out.Err.Error())}
	}
	out.Kind, out.Code, out.Next = v.kind, v.code.of(stage), v.next
	return out
}

// oneLine joins what each address and each try of a connection said, once each. That
// the server has no TLS is no news where the next try went without.
func oneLine(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	if len(out) > 2 {
		out = slices.DeleteFunc(out, func(l string) bool { return strings.HasSuffix(l, "server refused TLS connection") })
	}
	head := strings.TrimSuffix(out[0], ":")
	if len(out) == 1 {
		return head
	}
	return head + ": " + strings.Join(out[1:], "; ")
}

func judge(stage string, err error) verdict {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return judgeRefusal(stage, e)
	}
	if v, ok := judgeTLS(err); ok {
		return v
	}
	return judgeNetwork(err)
}

// refusal is an error of the server with everything that it says.
type refusal struct {
	err  error // as it came
	text string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.err }

// whereMax bounds what an error repeats of a value or of a stack of functions.
const whereMax = 500

func refusalText(err error, e *pgconn.PgError) string {
	var b strings.Builder
	b.WriteString(err.Error())
	for _, more := range []struct{ name, text string }{
		{"detail", e.Detail}, {"hint", e.Hint}, {"constraint", e.ConstraintName}, {"column", e.ColumnName}, {"context", e.Where},
	} {
		if len(more.text) > whereMax {
			more.text = strings.ToValidUTF8(more.text[:whereMax], "") + " ..."
		}
		if more.text != "" {
			b.WriteString("; " + more.name + ": " + more.text)
		}
	}
	return b.String()
}

// copyLine is the CONTEXT of an error in a COPY.
var copyLine = regexp.MustCompile(`(?m)^COPY .*?, line (\d+)(?:, column ([^:\n]+))?`)

// placeOf returns the row and the column that the server names.
func placeOf(e *pgconn.PgError) messages.Place {
	place := messages.Place{Field: e.ColumnName}
	if m := copyLine.FindStringSubmatch(e.Where); m != nil {
		place.Row, _ = strconv.ParseInt(m[1], 10, 64) // digits; too many of them are no row
		if place.Field == "" {
			place.Field = m[2]
		}
	}
	return place
}

// judgeTLS knows what can be wrong with an encrypted connection.
func judgeTLS(err error) (verdict, bool) {
	wrong := func(next string) (verdict, bool) { return verdict{connectors.KindConfig, isDenied, next}, true }
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return wrong("The certificate of the server is for another name: connect by a name that is in it, or set `sslmode: verify-ca`.")
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return wrong("Set `sslrootcert` to the certificate that has signed the server's.")
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return wrong("Renew the certificate of the server.")
	}
	if strings.Contains(err.Error(), "server refused TLS connection") { // an error without a type
		return wrong("The server has no TLS: set `ssl = on` there, or `sslmode: prefer` or `disable` here.")
	}
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	if verification || alert || record || strings.Contains(err.Error(), "tls: ") {
		return wrong("Check `sslmode`, `sslrootcert`, `sslcert` and `sslkey`, and the certificate of the server.")
	}
	return verdict{}, false
}

// judgeNetwork knows what can be wrong with the way to the server.
func judgeNetwork(err error) verdict {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsNotFound {
			return verdict{connectors.KindConfig, isMissing, "No host has this name: check `host`."}
		}
		return verdict{connectors.KindTransient, isFailed, "The name of the host could not be looked up: check the name service of this machine."}
	}
	_, protocol := errors.AsType[*wire.ProtocolError](err)
	_, lost := errors.AsType[*wire.LostError](err)
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	netError, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), connecting && errors.Is(err, fs.ErrNotExist):
		return verdict{connectors.KindTransient, isFailed, "No server listens there: start it, or correct `host` and `port`."}
	case connecting && errors.Is(err, fs.ErrPermission):
		return verdict{connectors.KindConfig, isDenied, "This user may not open the socket of the server."}
	case pgconn.Timeout(err) || isNet && netError.Timeout() || errors.Is(err, context.DeadlineExceeded):
		return verdict{connectors.KindTransient, isFailed, "The server did not answer in time: check the way to it, or raise `connect_timeout`."}
	case lost || isNet || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return verdict{connectors.KindTransient, isFailed, "The connection was lost: check the log of the server and the way to it, then run again."}
	case protocol:
		return verdict{connectors.KindTransient, isFailed, "What answers does not speak the protocol of PostgreSQL: check what listens there and what lies between."}
	case errors.Is(err, wire.ErrClosed), errors.Is(err, pgconn.ErrConnClosed):
		return verdict{connectors.KindTransient, isFailed, ""}
	case connecting:
		return verdict{connectors.KindConfig, isDenied, "Check the keys of the connection; the message is that of the login."}
	case connectors.KindOf(err) == connectors.KindTransient: // it says so itself
		return verdict{connectors.KindTransient, isFailed, ""}
	}
	return verdict{connectors.KindInternal, isInternal, ""}
}
