package postgres

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// doorman passes connections on and counts them.
type doorman struct {
	net.Listener
	let  atomic.Int32
	open atomic.Int32
	wg   sync.WaitGroup
}

func newDoorman(t *testing.T, to string) *doorman {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	d := &doorman{Listener: l}
	d.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			d.let.Add(1)
			d.open.Add(1)
			d.wg.Go(func() { defer d.open.Add(-1); d.pass(in, to) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); d.wg.Wait() })
	return d
}

func (d *doorman) pass(in net.Conn, to string) {
	defer func() { _ = in.Close() }()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	d.wg.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
	_, _ = io.Copy(out, in)
	_ = out.Close()
}

func (d *doorman) port() int { return d.Addr().(*net.TCPAddr).Port } //nolint:forcetypeassert // it listens on TCP

// A server without TLS is asked once and then used: it is not dialled a second time.
func TestPGAServerWithoutTLSIsDialledOnce(t *testing.T) {
	server := pgtest.Shared(t)
	for mode, dials := range map[string]int32{"": 1, "prefer": 1, "disable": 1, "allow": 1} {
		d := newDoorman(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(server.Port())))
		c := connectionTo(server, server.Database(t))
		c.Host, c.Port, c.SSLMode = "127.0.0.1", d.port(), mode
		dial := dialerOf(t, c, connectors.StageDestination)
		control, err := dial.plain(t.Context())
		require.NoError(t, err, mode)
		require.Equal(t, dials, d.let.Load(), "a control connection with sslmode %q", mode)
		require.NotNil(t, lineOf(control).who.PID)
		closeConn(control)

		data, err := dial.data(t.Context())
		require.NoError(t, err, mode)
		require.Equal(t, 2*dials, d.let.Load(), "a data connection with sslmode %q", mode)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err = data.Exec(ctx, "SELECT pg_sleep(60)") // its cancellation finds the way too
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, data.Close())
		require.Eventually(t, func() bool { return d.open.Load() == 0 }, 10*time.Second, 5*time.Millisecond, "a connection was left open")
	}
}

// Who asks for TLS and nothing else gets an error, and leaves nothing behind.
func TestPGAServerWithoutTLSIsRefused(t *testing.T) {
	server := pgtest.Shared(t)
	d := newDoorman(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(server.Port())))
	c := connectionTo(server, server.Database(t))
	c.Host, c.Port, c.SSLMode = "127.0.0.1", d.port(), "require"
	_, err := dialerOf(t, c, connectors.StageDestination).plain(t.Context())
	require.ErrorContains(t, err, "TLS")
	c.SSLMode, c.User = "prefer", "nobody-of-that-name"
	_, err = dialerOf(t, c, connectors.StageDestination).plain(t.Context())
	require.Error(t, err)
	require.Eventually(t, func() bool { return d.open.Load() == 0 }, 10*time.Second, 5*time.Millisecond, "a connection was left open")
}

// A server that closes behind its answer is like one that is gone.
func TestAnAnswerToTheQuestionForTLS(t *testing.T) {
	for name, tc := range map[string]struct {
		sent, answer string
		kept         bool
	}{
		"refused":         {string(tlsRequest), "N", true},
		"accepted":        {string(tlsRequest), "S", false},
		"an error":        {string(tlsRequest), "E", false},
		"more than asked": {string(tlsRequest), "NN", false},
		"another request": {"\x00\x00\x00\x08\x04\xd2\x16\x30", "N", false},
	} {
		ours, theirs := net.Pipe()
		a := &asker{refused: map[string]net.Conn{}}
		c := &asking{Conn: ours, asker: a, at: "tcp host"}
		go func() {
			_, _ = io.ReadFull(theirs, make([]byte, len(tc.sent)))
			_, _ = theirs.Write([]byte(tc.answer))
		}()
		_, err := c.Write([]byte(tc.sent))
		require.NoError(t, err)
		_, err = io.ReadAtLeast(c, make([]byte, 8), len(tc.answer))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.Equal(t, tc.kept, a.refused["tcp host"] == ours, name)
		if tc.kept {
			got, err := a.dialContext(t.Context(), "tcp", "host")
			require.NoError(t, err)
			require.Same(t, ours, got)
			require.Empty(t, a.refused)
		}
		_ = ours.Close()
		_ = theirs.Close()
	}
}
