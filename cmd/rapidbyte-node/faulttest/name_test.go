package faulttest

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
)

// Answers of a name server: their code, or an address.
const (
	answerAddress  = 0
	answerFailure  = 2 // it could not find out
	answerNobody   = 3 // nobody has this name
	dnsHeader      = 12
	dnsTypeAddress = 1
	lookupMost     = 12 // questions of one lookup: both families, twice, of three servers
)

// nameServer answers every question of this process as it is told, and counts them.
type nameServer struct {
	answer, asked atomic.Int32
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &nameServer{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve(conn)
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		require.NoError(t, conn.Close())
		<-done
	})
	return s
}

func (s *nameServer) serve(conn net.PacketConn) {
	buf := make([]byte, 512)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		s.asked.Add(1)
		_, _ = conn.WriteTo(s.reply(buf[:n]), from) // who asks waits, and asks again
	}
}

// reply repeats the question and answers it: an address for IPv4, nothing for others.
func (s *nameServer) reply(question []byte) []byte {
	end := dnsHeader
	for question[end] != 0 {
		end += int(question[end]) + 1
	}
	kind := binary.BigEndian.Uint16(question[end+1:])
	out := append([]byte(nil), question[:end+5]...)
	code := s.answer.Load()
	binary.BigEndian.PutUint16(out[2:], 0x8180|uint16(code)) //nolint:gosec // one digit
	answers := uint16(0)
	if code == answerAddress && kind == dnsTypeAddress {
		answers = 1
		out = append(out, 0xc0, dnsHeader, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
	}
	copy(out[4:], []byte{0, 1, byte(answers >> 8), byte(answers), 0, 0, 0, 0})
	return out
}

// A name that nobody has is a mistake in the document; a name server that fails may have
// recovered at the next try.
func TestPGNamesThatAreNotFound(t *testing.T) {
	names := newNameServer(t)
	whole := newRig(t)
	whole.fill("orders", 500)
	for _, end := range []string{"source", "destination"} {
		t.Run(end, func(t *testing.T) {
			r := whole.afresh(t)
			e := ends{mode: "append", tables: []string{"orders"}, resources: ", max_retries: 20"}
			text := r.document(e)
			i := strings.Index(text, "host: 127.0.0.1")
			if end == "destination" {
				i = strings.LastIndex(text, "host: 127.0.0.1")
			}
			text = text[:i] + "host: db.example." + text[i+len("host: 127.0.0.1"):]
			code := map[string]messages.Code{"source": messages.CodeSourceMissing, "destination": messages.CodeDestMissing}[end]

			names.answer.Store(answerNobody)
			s := r.run(text)
			require.Equal(t, messages.RunFailed, s.State)
			require.Equal(t, code, s.Failure.Code)
			require.Contains(t, s.Failure.Why, "no such host")
			require.Contains(t, s.Failure.Why, "db.example.")
			require.Contains(t, s.Failure.Next, "check `host`")
			require.Empty(t, s.causes(), "to try again would not help")

			names.answer.Store(answerFailure)
			asked := names.asked.Load()
			s = r.runWith(text, nil, func() {
				require.Eventually(t, func() bool { return names.asked.Load() > asked+lookupMost }, hangs, tick)
				names.answer.Store(answerAddress)
			})
			r.completed(s, e, 1, "server misbehaving")
		})
	}
}
