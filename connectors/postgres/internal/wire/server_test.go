package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors/postgres/pgtest"
)

var errEnough = errors.New("enough")

func TestPGExecReturnsOneResultPerStatement(t *testing.T) {
	_, _, c := fresh(t)
	results := exec(t, c, "CREATE TABLE t (x int, y text); INSERT INTO t VALUES (1, NULL), (2, ''), (3, 'é'); SELECT * FROM t ORDER BY x; ; SELECT FROM t")
	require.Len(t, results, 4)
	require.Equal(t, "INSERT 0 3", results[1].Tag)
	require.Equal(t, []string{"x", "y"}, results[2].Columns)
	require.Equal(t, [][][]byte{{[]byte("1"), nil}, {[]byte("2"), {}}, {[]byte("3"), []byte("é")}}, results[2].Rows)
	require.Len(t, results[3].Rows, 3)
	require.Empty(t, results[3].Columns)
	require.Equal(t, []Result{{}}, exec(t, c, ""))
	require.Equal(t, byte('I'), c.TxStatus())
	require.Equal(t, one(t, c, "SELECT pg_backend_pid()"), fmt.Sprint(c.PID()))
	require.Equal(t, one(t, c, "SHOW server_version"), c.Parameter("server_version"))
	exec(t, c, "SET application_name = 'other'")
	require.Equal(t, "other", c.Parameter("application_name"))
}

func TestPGExecStopsAtTheFirstError(t *testing.T) {
	_, _, c := fresh(t)
	results, err := c.Exec(t.Context(), "BEGIN; SELECT 1; SELECT 1/0; SELECT 2")
	refusedWith(t, err, "22012")
	require.Len(t, results, 2)
	require.Equal(t, byte('E'), c.TxStatus())
	require.False(t, c.Broken())
	exec(t, c, "ROLLBACK")
	require.Equal(t, byte('I'), c.TxStatus())

	_, err = c.Exec(t.Context(), "SELECT '\x00'")
	require.ErrorIs(t, err, errNUL)
	exec(t, c, "CREATE TABLE t (x int)")
	_, err = c.Exec(t.Context(), "COPY t FROM STDIN")
	require.ErrorIs(t, err, errNoCopy)
	_, err = c.Exec(t.Context(), "COPY t TO STDOUT")
	require.ErrorIs(t, err, errNoCopy)
	require.Equal(t, "1", one(t, c, "SELECT 1"))
}

func TestPGCopyBothWays(t *testing.T) {
	for _, over := range []way{overUnix, overTCP} {
		t.Run(string(over), func(t *testing.T) {
			s := pgtest.Shared(t)
			db := s.Database(t)
			from, to := dial(t, s, db, over), dial(t, s, db, over)
			exec(t, from, "CREATE TABLE a (x int, y text, z float8); CREATE TABLE b (LIKE a); INSERT INTO a SELECT i, repeat('x', i % 100), i/7.0 FROM generate_series(1, 100000) i")
			in, err := to.CopyIn(t.Context(), "COPY b FROM STDIN (FORMAT binary)")
			require.NoError(t, err)
			_, err = to.Exec(t.Context(), "SELECT 1")
			require.ErrorIs(t, err, ErrBusy)
			buf := make([]byte, Headroom)
			rows, err := from.CopyOut(t.Context(), "COPY a TO STDOUT (FORMAT binary)", func(p []byte) error {
				if buf = append(buf, p...); len(buf) < 64<<10 {
					return nil
				}
				err := in.Send(t.Context(), buf)
				buf = buf[:Headroom]
				return err
			})
			require.NoError(t, err)
			require.EqualValues(t, 100000, rows)
			require.NoError(t, in.Send(t.Context(), buf))
			require.NoError(t, in.Send(t.Context(), make([]byte, Headroom)))
			rows, err = in.Done(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 100000, rows)
			require.Equal(t, "0", one(t, to, "SELECT count(*) FROM (TABLE a EXCEPT TABLE b) d"))
			require.Equal(t, "100000", one(t, to, "SELECT count(*) FROM b"))
			require.ErrorIs(t, in.Send(t.Context(), buf), ErrEnded)
			_, err = in.Done(t.Context())
			require.ErrorIs(t, err, ErrEnded)
		})
	}
}

// TestPGCopyOutMessages: runs of messages are the payloads that CopyOut gives, in order,
// also where one is larger than the buffer.
func TestPGCopyOutMessages(t *testing.T) {
	_, _, c := fresh(t)
	exec(t, c, "CREATE TABLE a (x int, y text); INSERT INTO a SELECT i, repeat('x', CASE i WHEN 7777 THEN 2000000 ELSE i % 300 END) FROM generate_series(1, 20000) i")
	const sql = "COPY a TO STDOUT (FORMAT binary)"
	var want, got []byte
	n, err := c.CopyOut(t.Context(), sql, func(p []byte) error {
		want = append(want, p...)
		return nil
	})
	require.NoError(t, err)
	require.EqualValues(t, 20000, n)
	calls, messages := 0, 0
	n, err = c.CopyOutMessages(t.Context(), sql, func(run []byte) error {
		for calls++; len(run) > 0; messages++ {
			require.Equal(t, byte('d'), run[0])
			size := 1 + int(binary.BigEndian.Uint32(run[1:]))
			got, run = append(got, run[headerSize:size]...), run[size:]
		}
		return nil
	})
	require.NoError(t, err)
	require.EqualValues(t, 20000, n)
	require.True(t, bytes.Equal(want, got))
	require.Less(t, 2*calls, messages, "messages come together")
	_, err = c.CopyOutMessages(t.Context(), sql, func([]byte) error { return errEnough })
	require.ErrorIs(t, err, errEnough)
	require.True(t, c.Broken())
}

// lines is a payload of text COPY behind the headroom.
func lines(text string) []byte { return append(make([]byte, Headroom), text...) }

func TestPGBadRowEndsTheCopyNotTheConnection(t *testing.T) {
	_, _, c := fresh(t)
	exec(t, c, "CREATE TABLE t (x int)")
	in, err := c.CopyIn(t.Context(), "COPY t FROM STDIN")
	require.NoError(t, err)
	require.NoError(t, in.Send(t.Context(), lines("1\n")))
	require.NoError(t, in.Send(t.Context(), lines("no\n")))
	good := []byte(strings.Repeat("2\n", 10000))
	for err == nil { // until the server has looked at the row
		err = in.Send(soon(t), lines(string(good)))
	}
	e := refusedWith(t, err, "22P02")
	require.Contains(t, e.Where, "line 2, column x")
	_, err = in.Done(t.Context())
	refusedWith(t, err, "22P02")
	require.NoError(t, in.Abort(t.Context(), "given up"))
	require.Equal(t, "0", one(t, c, "SELECT count(*) FROM t"))

	in, err = c.CopyIn(t.Context(), "COPY t FROM STDIN")
	require.NoError(t, err)
	require.NoError(t, in.Send(t.Context(), lines("no\n")))
	_, err = in.Done(t.Context())
	refusedWith(t, err, "22P02")
	require.Equal(t, "0", one(t, c, "SELECT count(*) FROM t"))
}

func TestPGAbortLeavesTheConnectionUsable(t *testing.T) {
	_, _, c := fresh(t)
	exec(t, c, "CREATE TABLE t (x int)")
	exec(t, c, "BEGIN")
	in, err := c.CopyIn(t.Context(), "COPY t FROM STDIN")
	require.NoError(t, err)
	require.NoError(t, in.Send(t.Context(), lines("1\n")))
	require.NoError(t, in.Abort(t.Context(), "not\x00 wanted"))
	require.NoError(t, in.Abort(t.Context(), "twice"))
	require.Equal(t, byte('E'), c.TxStatus())
	exec(t, c, "ROLLBACK")
	require.Equal(t, "0", one(t, c, "SELECT count(*) FROM t"))
}

func TestPGRefusedCopies(t *testing.T) {
	_, _, c := fresh(t)
	_, err := c.CopyIn(t.Context(), "COPY missing FROM STDIN")
	refusedWith(t, err, "42P01")
	_, err = c.CopyOut(t.Context(), "COPY missing TO STDOUT", nil)
	refusedWith(t, err, "42P01")
	_, err = c.CopyOut(t.Context(), "COPY (SELECT 1/(3-i) FROM generate_series(1, 5) i) TO STDOUT", func([]byte) error { return nil })
	refusedWith(t, err, "22012")
	require.Equal(t, "1", one(t, c, "SELECT 1"))
	rows, err := c.CopyOut(t.Context(), "COPY (SELECT 1) TO STDOUT", func([]byte) error { return errEnough })
	require.Equal(t, errEnough, err)
	require.Zero(t, rows)
	require.True(t, c.Broken())
	_, err = c.Exec(t.Context(), "SELECT 1")
	require.ErrorIs(t, err, errEnough)
}

// TestPGNoticesDoNotBlockACopy makes the server say much more than fits the buffers
// of a socket while we only write.
func TestPGNoticesDoNotBlockACopy(t *testing.T) {
	_, _, c := fresh(t)
	exec(t, c, `CREATE TABLE t (x int);
		CREATE FUNCTION talk() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE '%', repeat('n', 2000); RETURN NEW; END$$;
		CREATE TRIGGER talk BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION talk()`)
	in, err := c.CopyIn(t.Context(), "COPY t FROM STDIN")
	require.NoError(t, err)
	for range 20 {
		require.NoError(t, in.Send(soon(t), lines(strings.Repeat("1\n", 1000))))
	}
	rows, err := in.Done(soon(t))
	require.NoError(t, err)
	require.EqualValues(t, 20000, rows)
}

func TestPGHundredMegabyteValue(t *testing.T) {
	s, db, c := fresh(t)
	exec(t, c, "CREATE TABLE t (x bytea)")
	value := bytes.Repeat([]byte("0123456789"), 10<<20)
	row := append(make([]byte, Headroom), copyHeader...)
	row = append(row, field(value, 1)...)
	row = append(row, 0xff, 0xff)
	in, err := c.CopyIn(t.Context(), "COPY t FROM STDIN (FORMAT binary)")
	require.NoError(t, err)
	require.NoError(t, in.Send(t.Context(), row))
	_, err = in.Done(t.Context())
	require.NoError(t, err)
	largest := 0
	_, err = c.CopyOut(t.Context(), "COPY t TO STDOUT (FORMAT binary)", func(p []byte) error {
		if len(p) > largest {
			largest = len(p)
			require.True(t, bytes.Contains(p, value[:1000]) && bytes.HasSuffix(p, value[len(value)-1000:]))
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, largest, len(value))
	require.Equal(t, "1", one(t, c, "SELECT 1"))
	require.LessOrEqual(t, len(c.in.buf), readBuffer, "a giant that has passed leaves no giant buffer")
	require.Equal(t, [][]string{{fmt.Sprint(len(value))}}, s.Query(t, db, "SELECT length(x) FROM t"))
}

// copyHeader begins a binary COPY.
var copyHeader = []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")

// field is a row of binary COPY with one value; columns is its count of columns.
func field(value []byte, columns uint16) []byte {
	out := binary.BigEndian.AppendUint16(nil, columns)
	out = binary.BigEndian.AppendUint32(out, uint32(len(value)))
	return append(out, value...)
}

func TestPGInsertWithBinaryParameters(t *testing.T) {
	_, _, c := fresh(t)
	exec(t, c, "CREATE TABLE t (x int, y text)")
	raw := field([]byte{0, 0, 0, 7}, 0)[2:]
	raw = append(raw, field([]byte("seven"), 0)[2:]...)
	raw = append(raw, field([]byte{0, 0, 0, 8}, 0)[2:]...)
	raw = append(raw, 0xff, 0xff, 0xff, 0xff) // NULL
	tag, err := c.Insert(t.Context(), "INSERT INTO t VALUES ($1, $2), ($3, $4)", []uint32{23, 25, 23, 25}, 4, raw)
	require.NoError(t, err)
	require.Equal(t, "INSERT 0 2", tag)
	require.Equal(t, [][][]byte{{[]byte("7"), []byte("seven")}, {[]byte("8"), nil}}, exec(t, c, "SELECT * FROM t ORDER BY x")[0].Rows)
	tag, err = c.Insert(t.Context(), "INSERT INTO t VALUES (1) RETURNING x", nil, 0, nil)
	require.NoError(t, err)
	require.Equal(t, "INSERT 0 1", tag)

	_, err = c.Insert(t.Context(), "INSERT INTO t VALUES ($1)", []uint32{23}, 1, field([]byte{1}, 0)[2:])
	refusedWith(t, err, "08P01") // the server's name for too few bytes
	require.False(t, c.Broken())
	_, err = c.Insert(t.Context(), "INSERT INTO missing VALUES ($1)", []uint32{23}, 1, raw[:8])
	refusedWith(t, err, "42P01")
	_, err = c.Insert(t.Context(), "INSERT INTO t VALUES ($1)", nil, 1, raw)
	require.Error(t, err)
	require.Equal(t, "3", one(t, c, "SELECT count(*) FROM t"))
}

func TestPGEndOfContextEndsTheCallAndTheStatement(t *testing.T) {
	cause := errors.New("nobody waits")
	for _, over := range []way{overUnix, overTCP} {
		t.Run(string(over), func(t *testing.T) {
			s := pgtest.Shared(t)
			db := s.Database(t)
			s.Exec(t, db, "CREATE TABLE t (x int); CREATE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(3600); RETURN NEW; END$$; CREATE TRIGGER nap BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION nap()")
			calls := map[string]func(context.Context, *Conn) error{
				"exec": func(ctx context.Context, c *Conn) error {
					_, err := c.Exec(ctx, "SELECT pg_sleep(3600)")
					return err
				},
				"copy out": func(ctx context.Context, c *Conn) error {
					_, err := c.CopyOut(ctx, "COPY (SELECT pg_sleep(3600)) TO STDOUT", func([]byte) error { return nil })
					return err
				},
				"copy in": func(ctx context.Context, c *Conn) error {
					in, err := c.CopyIn(ctx, "COPY t FROM STDIN")
					for big := lines(strings.Repeat("1\n", 1<<20)); err == nil; {
						err = in.Send(ctx, big)
					}
					_, again := in.Done(ctx)
					require.Error(t, again)
					require.Error(t, in.Abort(context.Background(), "too late"))
					return err
				},
				"done": func(ctx context.Context, c *Conn) error {
					in, err := c.CopyIn(ctx, "COPY t FROM STDIN")
					require.NoError(t, err)
					require.NoError(t, in.Send(ctx, lines("1\n")))
					_, err = in.Done(ctx)
					return err
				},
				"insert": func(ctx context.Context, c *Conn) error {
					_, err := c.Insert(ctx, "INSERT INTO t VALUES (1)", nil, 0, nil)
					return err
				},
			}
			for name, call := range calls {
				t.Run(name, func(t *testing.T) {
					c := dial(t, s, db, over)
					ctx, cancel := context.WithCancelCause(t.Context())
					failed := make(chan error, 1)
					go func() { failed <- call(ctx, c) }()
					busy(t, s, c.PID(), "wait_event = 'PgSleep'")
					cancel(cause)
					require.ErrorIs(t, <-failed, cause)
					require.True(t, c.Broken())
					gone(t, s, c.PID())
					require.NoError(t, c.Close())
				})
			}
		})
	}
}

func TestPGContextThatHasEndedHarmsNothing(t *testing.T) {
	_, _, c := fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Exec(ctx, "SELECT 1")
	require.ErrorIs(t, err, context.Canceled)
	exec(t, c, "CREATE TABLE t (x int)")
	in, err := c.CopyIn(t.Context(), "COPY t FROM STDIN")
	require.NoError(t, err)
	require.ErrorIs(t, in.Send(ctx, lines("1\n")), context.Canceled)
	_, err = in.Done(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, in.Abort(ctx, ""), context.Canceled)
	require.NoError(t, in.Send(t.Context(), lines("1\n")))
	rows, err := in.Done(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, rows)
}

// TestPGLastWordsOfTheServerWin ends connections from the side of the server.
func TestPGLastWordsOfTheServerWin(t *testing.T) {
	kill := func(t *testing.T, s *pgtest.Server, c *Conn) {
		s.Exec(t, "postgres", fmt.Sprintf("SELECT pg_terminate_backend(%d)", c.PID()))
	}
	for _, over := range []way{overUnix, overTCP} {
		t.Run(string(over), func(t *testing.T) {
			s := pgtest.Shared(t)
			db := s.Database(t)
			s.Exec(t, db, "CREATE TABLE t (x int)")
			c := dial(t, s, db, over)
			kill(t, s, c) // idle
			gone(t, s, c.PID())
			_, err := c.Exec(t.Context(), "SELECT 1")
			refusedWith(t, err, "57P01")
			require.True(t, c.Broken())

			c = dial(t, s, db, over) // sending
			in, err := c.CopyIn(t.Context(), "COPY t FROM STDIN")
			require.NoError(t, err)
			require.NoError(t, in.Send(t.Context(), lines("1\n")))
			kill(t, s, c)
			for big := lines(strings.Repeat("1\n", 1<<20)); err == nil; {
				err = in.Send(soon(t), big)
			}
			refusedWith(t, err, "57P01")
			require.Error(t, in.Abort(t.Context(), ""))

			c = dial(t, s, db, over) // receiving
			killed := false
			_, err = c.CopyOut(soon(t), "COPY (SELECT repeat('x', 100000) FROM generate_series(1, 1000000)) TO STDOUT", func([]byte) error {
				if !killed {
					kill(t, s, c)
					killed = true
				}
				return nil
			})
			lastWord(t, err) // a server that is blocked while it sends says nothing
		})
	}
}

// lastWord requires that err is the end of a connection, announced or not.
func lastWord(t testing.TB, err error) {
	t.Helper()
	if _, lost := errors.AsType[*LostError](err); !lost {
		refusedWith(t, err, "57P01")
	}
}

func TestPGShutdownInTheMiddleOfACopy(t *testing.T) {
	stops := map[string]func(*pgtest.Server, pgtest.T){
		"immediate": (*pgtest.Server).Immediate, "fast": (*pgtest.Server).Stop, "killed": (*pgtest.Server).Kill9,
	}
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			s := pgtest.Start(t, "fsync=off")
			s.Exec(t, "postgres", "CREATE TABLE t (x int)")
			idle, sending := dial(t, s, "postgres", overTCP), dial(t, s, "postgres", overUnix)
			in, err := sending.CopyIn(t.Context(), "COPY t FROM STDIN")
			require.NoError(t, err)
			require.NoError(t, in.Send(t.Context(), lines("1\n")))
			stop(s, t)
			for big := lines(strings.Repeat("1\n", 1<<20)); err == nil; {
				err = in.Send(soon(t), big)
			}
			_, idleErr := idle.Exec(soon(t), "SELECT 1")
			if name == "fast" {
				refusedWith(t, idleErr, "57P01")
			} else {
				lastWord(t, idleErr) // an immediate shutdown tries to say so, and does not wait
			}
			// A server that closes with rows unread resets the connection, and the reset may
			// overtake what it said.
			lastWord(t, err)
			require.True(t, idle.Broken() && sending.Broken())
			_, err = Connect(t.Context(), config(t, s, "postgres", overTCP))
			_, ok := errors.AsType[*pgconn.ConnectError](err)
			require.True(t, ok, "%v", err)
		})
	}
}

// TestPGCrashOfANeighbour ends every connection with a warning of the server.
func TestPGCrashOfANeighbour(t *testing.T) {
	s := pgtest.Start(t, "fsync=off")
	c, victim := dial(t, s, "postgres", overTCP), dial(t, s, "postgres", overTCP)
	failed := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "SELECT pg_sleep(3600)")
		failed <- err
	}()
	busy(t, s, c.PID(), "wait_event = 'PgSleep'")
	kill9(t, victim.PID())
	refusedWith(t, <-failed, "57P02")
}

func TestPGCloseEndsTheCallThatRuns(t *testing.T) {
	s, db, c := fresh(t)
	failed := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "SELECT pg_sleep(3600)")
		failed <- err
	}()
	busy(t, s, c.PID(), "wait_event = 'PgSleep'")
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-failed, ErrClosed)
	require.NoError(t, c.Close())
	_, err := c.Exec(t.Context(), "SELECT 1")
	require.ErrorIs(t, err, ErrClosed)
	s.Exec(t, "postgres", fmt.Sprintf("SELECT pg_terminate_backend(%d)", c.PID())) // it sleeps still

	copying := dial(t, s, db, overUnix)
	exec(t, copying, "CREATE TABLE t (x int)")
	_, err = copying.CopyIn(t.Context(), "COPY t FROM STDIN")
	require.NoError(t, err)
	require.NoError(t, copying.Close()) // and goleak finds no goroutine
	idle := dial(t, s, db, overUnix)
	require.NoError(t, idle.Close())
	gone(t, s, idle.PID())
}

// BenchmarkPGPipe copies a table to another through two connections, as bytes.
func BenchmarkPGPipe(b *testing.B) {
	s := pgtest.Shared(b)
	db := s.Database(b)
	from, to := dial(b, s, db, overUnix), dial(b, s, db, overUnix)
	exec(b, from, "CREATE UNLOGGED TABLE a (x int8, y text, z float8, at timestamptz); CREATE UNLOGGED TABLE b (LIKE a); INSERT INTO a SELECT i, md5(i::text), i/7.0, now() FROM generate_series(1, 500000) i")
	var n, bytes int64
	for b.Loop() {
		exec(b, to, "TRUNCATE b")
		in, err := to.CopyIn(b.Context(), "COPY b FROM STDIN (FORMAT binary)")
		require.NoError(b, err)
		buf := make([]byte, Headroom, 2<<20)
		rows, err := from.CopyOut(b.Context(), "COPY a TO STDOUT (FORMAT binary)", func(p []byte) error {
			bytes += int64(len(p))
			if buf = append(buf, p...); len(buf) < 1<<20 {
				return nil
			}
			err := in.Send(b.Context(), buf)
			buf = buf[:Headroom]
			return err
		})
		require.NoError(b, err)
		require.NoError(b, in.Send(b.Context(), buf))
		_, err = in.Done(b.Context())
		require.NoError(b, err)
		n += rows
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(bytes)/1e6/b.Elapsed().Seconds(), "MB/s")
}
