package postgres

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
)

// between is a pooler: it logs clients in as nobody asks, under a process number of
// its own, and lends them a session for a transaction or for good.
type between struct {
	t           *testing.T
	url         string
	transaction bool
	listener    net.Listener
	clients     sync.WaitGroup

	mu     sync.Mutex // held while a transaction has the session
	lent   *pgconn.HijackedConn
	opened []net.Conn
}

func startBetween(t *testing.T, url string, transaction bool) *between {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &between{t: t, url: url, transaction: transaction, listener: l}
	b.lent = b.open()
	b.clients.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.clients.Go(func() { b.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		b.clients.Wait()
		for _, c := range b.opened {
			_ = c.Close()
		}
	})
	return b
}

func (b *between) open() *pgconn.HijackedConn {
	pg, err := pgconn.Connect(context.Background(), b.url)
	if err != nil {
		b.t.Errorf("connect: %v", err)
		return nil
	}
	h, err := pg.Hijack()
	if err != nil {
		b.t.Errorf("hijack: %v", err)
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened = append(b.opened, h.Conn)
	return h
}

// serve relays whole turns: what the client says up to a Query or a Sync, and the
// answer up to ReadyForQuery.
func (b *between) serve(client net.Conn) {
	defer client.Close()
	backend := pgproto3.NewBackend(client, client)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	server := b.lent
	if !b.transaction {
		server = b.open()
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: server.ParameterStatuses["server_version"]})
	backend.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: make([]byte, 4)})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if backend.Flush() != nil {
		return
	}
	for b.turn(client, server.Conn) {
	}
}

func (b *between) turn(client, server net.Conn) bool {
	for locked := false; ; {
		typ, frame, err := readFrame(client)
		if err != nil || typ == 'X' {
			return false
		}
		if !locked {
			b.mu.Lock()
			locked = true
			defer b.mu.Unlock()
		}
		if _, err := server.Write(frame); err != nil {
			return false
		}
		if typ == 'Q' || typ == 'S' {
			return relay(client, server)
		}
	}
}

func relay(client, server net.Conn) bool {
	for {
		typ, frame, err := readFrame(server)
		if err != nil {
			return false
		}
		if _, err := client.Write(frame); err != nil {
			return false
		}
		if typ == 'Z' {
			return true
		}
	}
}

func readFrame(r io.Reader) (byte, []byte, error) {
	header := make([]byte, 5)
	if _, err := io.ReadFull(r, header); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
	_, err := io.ReadFull(r, body)
	return header[0], append(header, body...), err
}

func TestPGPoolersAreTakenOnlyInSessionMode(t *testing.T) {
	s := pgtest.Shared(t)
	db := s.Database(t)
	for _, transaction := range []bool{false, true} {
		b := startBetween(t, s.URL(db), transaction)
		c := Connection{Host: "127.0.0.1", Port: b.listener.Addr().(*net.TCPAddr).Port, User: s.User(), Database: db, SSLMode: "disable"}
		d := dialerOf(t, c, connectors.StageDestination)
		for range 2 { // the second time it is known
			conn, err := d.control(t.Context())
			if transaction {
				e := coded(t, err)
				require.Equal(t, connectors.KindConfig, e.Kind)
				require.Contains(t, e.Next, "session mode")
				continue
			}
			require.NoError(t, err)
			require.NoError(t, conn.Close(t.Context()))
		}
		require.Equal(t, !transaction, d.pooler.passed)
	}
}
