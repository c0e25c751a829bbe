package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func kill9(t testing.TB, pid uint32) {
	t.Helper()
	require.NoError(t, syscall.Kill(int(pid), syscall.SIGKILL))
}

// message is what a server sends.
func message(typ byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body)))) + body
}

const (
	refusal = "SERROR\x00VERROR\x00C22012\x00Mdivision by zero\x00\x00"
	death   = "SFATAL\x00VFATAL\x00C57P01\x00Mterminating\x00\x00"
	warning = "SWARNING\x00VWARNING\x00C57P02\x00Mcrash of another\x00\x00"
)

// answering answers the first message of the client with text, then closes.
func answering(text string) func(net.Conn) {
	return func(conn net.Conn) {
		defer conn.Close()
		header := make([]byte, headerSize)
		if _, err := io.ReadFull(conn, header); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(header[1:]))-4); err != nil {
			return
		}
		go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
		_, _ = io.WriteString(conn, text)                // the client may have gone
	}
}

func TestMalformedAnswersEndTheConnection(t *testing.T) {
	row := message('D', "\x00\x01\x00\x00\x00\x01x")
	cases := []struct{ name, answer string }{
		{"type", message('?', "")},
		{"length below itself", "Z\x00\x00\x00\x03I"},
		{"length of 4 GiB", "D\xff\xff\xff\xffabc"},
		{"length of 1 GiB and a little", "D\x40\x00\x00\x05abc"},
		{"ready without a status", message('Z', "")},
		{"ready with an unknown status", message('Z', "x")},
		{"ready with too much", message('Z', "II")},
		{"row cut off", message('D', "\x00\x02\x00\x00\x00\x01x")},
		{"row with too much", message('D', "\x00\x01\x00\x00\x00\x01xy")},
		{"row without a count", message('D', "\x00")},
		{"value of negative length", message('D', "\x00\x01\xff\xff\xff\xfe")},
		{"columns cut off", message('T', "\x00\x01name\x00abc")},
		{"columns without a count", message('T', "")},
		{"columns with too much", message('T', "\x00\x00x")},
		{"tag without an end", message('C', "SELECT 1")},
		{"tag twice", message('C', "a\x00b\x00")},
		{"error without an end", message('E', "SERROR")},
		{"notice without an end", message('N', "SNOTICE\x00Mx")},
		{"parameter without a value", message('S', "x\x00")},
		{"copy both", message('W', "\x00\x00\x00")},
		{"authentication", message('R', "\x00\x00\x00\x00")},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := scripted(t, answering(row+tc.answer))
			_, err := c.Exec(soon(t), "SELECT 1")
			_, ok := errors.AsType[*ProtocolError](err)
			require.True(t, ok, "%v", err)
			require.True(t, c.Broken())
			_, err = c.Exec(soon(t), "SELECT 1")
			_, ok = errors.AsType[*ProtocolError](err)
			require.True(t, ok, "the first cause stays: %v", err)
		})
	}
}

func TestAnswersOfAnotherCallEndTheConnection(t *testing.T) {
	ready := message('Z', "I")
	calls := map[string]struct {
		answers []string
		call    func(*testing.T, *Conn) error
	}{
		"copy out": {
			[]string{ready, message('G', "\x00\x00\x00"), message('C', "SELECT\x00"), message('H', "\x00\x00\x00") + message('D', "\x00\x00"), message('E', refusal) + message('H', "\x00\x00\x00")},
			func(t *testing.T, c *Conn) error {
				_, err := c.CopyOut(soon(t), "COPY", func([]byte) error { return nil })
				return err
			},
		},
		"copy in": {
			[]string{ready, message('H', "\x00\x00\x00"), message('G', "\x00\x00\x00") + ready, message('G', "\x00\x00\x00") + message('d', "x")},
			func(t *testing.T, c *Conn) error {
				in, err := c.CopyIn(soon(t), "COPY")
				if err == nil {
					_, err = in.Done(soon(t))
				}
				return err
			},
		},
		"insert": {
			[]string{message('T', "\x00\x00"), message('G', "\x00\x00\x00"), message('1', "x")},
			func(t *testing.T, c *Conn) error {
				_, err := c.Insert(soon(t), "INSERT", nil, 0, nil)
				return err
			},
		},
	}
	for name, tc := range calls {
		for _, answer := range tc.answers {
			t.Run(name, func(t *testing.T) {
				c := scripted(t, answering(answer))
				require.Error(t, tc.call(t, c))
				require.True(t, c.Broken())
			})
		}
	}
}

func TestEndOfTheConnection(t *testing.T) {
	row := message('D', "\x00\x01\x00\x00\x00\x01x")
	cases := []struct{ name, answer, code, text string }{
		{"at once", "", "", "the server closed the connection"},
		{"after a row", row, "", "the server closed the connection"},
		{"in a header", row + "D\x00", "", "unexpected EOF"},
		{"in a row", row + row[:7], "", "unexpected EOF"},
		{"after a refusal", message('E', refusal), "22012", "the server closed the connection"},
		{"after the last word", message('E', death), "57P01", ""},
		{"after a refusal and the last word", message('E', refusal) + message('E', death), "22012", ""},
		{"after a warning", message('N', warning), "57P02", ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := scripted(t, answering(tc.answer))
			_, err := c.Exec(soon(t), "SELECT 1")
			require.ErrorContains(t, err, tc.text)
			if tc.code == "" {
				_, ok := errors.AsType[*LostError](err)
				require.True(t, ok, "%v", err)
			} else {
				refusedWith(t, err, tc.code)
			}
			require.True(t, c.Broken())
		})
	}
}

// TestLastWordBeforeAWriteThatFails has the server refuse to read after its error.
func TestLastWordBeforeAWriteThatFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, message('E', death))
		_ = conn.Close()
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	<-done
	require.NoError(t, l.Close())
	c := newConn(raw)
	_, err = c.Exec(soon(t), string(bytes.Repeat([]byte("x"), 64<<20)))
	refusedWith(t, err, "57P01")
	require.NoError(t, c.Close())
}

func TestLimitsOfWhatIsSent(t *testing.T) {
	c := scripted(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	_, err := c.Insert(t.Context(), "INSERT", make([]uint32, 2), 1, []byte{0, 0, 0, 0})
	require.Error(t, err)
	_, err = c.Insert(t.Context(), "INSERT", nil, 65536, bytes.Repeat([]byte{255}, 4*65536))
	require.ErrorContains(t, err, "65535")
	_, err = c.Insert(t.Context(), "INS\x00ERT", nil, 0, nil)
	require.ErrorIs(t, err, errNUL)
	require.False(t, c.Broken())
}

// FuzzFrames cuts arbitrary bytes, whatever the pieces in which they arrive, as a
// loop over the whole does.
func FuzzFrames(f *testing.F) {
	f.Add([]byte(message('D', "\x00\x00")+message('Z', "I")+message('d', "payload")), true)
	f.Add([]byte("D\xff\xff\xff\xff"), false)
	f.Add([]byte("Z\x00\x00\x00\x03"), false)
	f.Fuzz(func(t *testing.T, data []byte, slow bool) {
		var src io.Reader = bytes.NewReader(data)
		if slow {
			src = iotest.OneByteReader(src)
		}
		frames := &frames{src: src, buf: make([]byte, 8)} // small: it must grow and move
		rest := data
		for {
			typ, body, err := frames.next()
			if err != nil {
				require.LessOrEqual(t, len(frames.buf), readBuffer, "a length word buys no memory")
				if _, ok := errors.AsType[*ProtocolError](err); ok {
					return
				}
				require.True(t, len(rest) < headerSize || int64(len(rest)) < int64(binary.BigEndian.Uint32(rest[1:]))+1, "a whole message is there: %v", err)
				return
			}
			require.Equal(t, rest[0], typ)
			size := int(binary.BigEndian.Uint32(rest[1:])) + 1
			require.True(t, bytes.Equal(rest[headerSize:size], body))
			decodeAnything(typ, body)
			run := frames.run(typ, len(body))
			require.True(t, len(run) == size || len(run) > size && len(run) <= runMax)
			require.True(t, bytes.HasPrefix(rest, run))
			for rest = rest[len(run):]; len(run) > 0; run = run[size:] {
				size = int(binary.BigEndian.Uint32(run[1:])) + 1
				require.True(t, run[0] == typ && size <= len(run), "a run is of whole messages of one type")
			}
		}
	})
}

// decodeAnything must not panic.
func decodeAnything(typ byte, body []byte) {
	_, _ = decodeColumns(body)
	_, _ = decodeRow(body)
	_, _ = decodeTexts(typ, body, 2)
	if tag, err := decodeTag(body); err == nil {
		rowsOf(tag)
	}
	_, _ = serverError(typ, body)
}
