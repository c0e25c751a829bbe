package wire

import (
	"context"
	"errors"

	"rapidbyte.io/node/runtime/failpoint"
)

// Result is what one statement gave, in text format.
type Result struct {
	Tag     string
	Columns []string
	Rows    [][][]byte // nil is NULL; owned by the caller
}

// errNoCopy answers a COPY that was given to Exec.
var errNoCopy = errors.New("a COPY needs CopyIn or CopyOut")

// Exec runs statements by the simple protocol and returns one Result for each. An
// error of the server ends them; the results before it are returned with it.
func (c *Conn) Exec(ctx context.Context, sql string) ([]Result, error) {
	return c.exec(ctx, sql, "")
}

// Commit is Exec of COMMIT, which can be made to fail when it is sent and its answer
// was not read.
func (c *Conn) Commit(ctx context.Context) ([]Result, error) {
	return c.exec(ctx, "COMMIT", failpoint.DestCommitSent)
}

func (c *Conn) exec(ctx context.Context, sql string, sent failpoint.Point) (results []Result, err error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	defer c.end()
	err = c.watched(ctx, "run statement", func() error {
		if err := c.query(sql); err != nil {
			return err
		}
		if sent != "" {
			if err := failpoint.Hit(sent); err != nil {
				return c.fail(&LostError{Op: "read", Err: err})
			}
		}
		var err error
		results, err = c.results()
		return err
	})
	return results, err
}

// query sends statements by the simple protocol.
func (c *Conn) query(sql string) error {
	out, err := appendText(c.out[:0], 'Q', sql)
	c.out = out[:0]
	if err != nil {
		return err
	}
	return c.write(out)
}

// results collects until the server is ready again.
func (c *Conn) results() (done []Result, first error) {
	var now Result
	for {
		typ, body, err := c.next()
		if err != nil {
			return done, both(first, err)
		}
		switch typ {
		case 'T':
			now.Columns, err = decodeColumns(body)
		case 'D':
			var row [][]byte
			row, err = decodeRow(body)
			now.Rows = append(now.Rows, row)
		case 'C':
			now.Tag, err = decodeTag(body)
			done, now = append(done, now), Result{}
		case 'I':
			done, now = append(done, Result{}), Result{}
		case 'E':
			_, ended, refusal := c.refused(body)
			if first == nil {
				first = refusal
			}
			if ended {
				return done, first
			}
		case 'G':
			if first == nil {
				first = errNoCopy
			}
			err = c.declineCopy()
		case 'H':
			if first == nil {
				first = errNoCopy
			}
		case 'd', 'c': // of a COPY that nobody wants
		case 'Z':
			return done, first
		default:
			err = unexpected(typ, "statements")
		}
		if err != nil {
			return done, both(first, c.fail(err))
		}
	}
}

// declineCopy ends a copy in that was not asked for.
func (c *Conn) declineCopy() error {
	message, err := appendText(nil, 'f', errNoCopy.Error())
	if err != nil {
		return err
	}
	return c.write(message)
}

func decodeTag(body []byte) (string, error) {
	texts, err := decodeTexts('C', body, 1)
	if err != nil {
		return "", err
	}
	return texts[0], nil
}

// Insert runs one statement by the extended protocol, unnamed, with all parameters
// in binary: raw holds n times a length (int32, -1 is NULL) and its bytes, as a row
// of COPY does. It returns the command tag.
func (c *Conn) Insert(ctx context.Context, sql string, oids []uint32, n int, raw []byte) (tag string, err error) {
	if err := checkValues(raw, n); err != nil {
		return "", err
	}
	before, after, err := insertMessages(nil, sql, oids, n, len(raw))
	if err != nil {
		return "", err
	}
	if err := c.begin(); err != nil {
		return "", err
	}
	defer c.end()
	err = c.watched(ctx, "run statement", func() error {
		if err := c.write(before, raw, after); err != nil {
			return err
		}
		var err error
		tag, err = c.inserted()
		return err
	})
	return tag, err
}

// inserted reads the answers to Parse, Bind, Execute and Sync.
func (c *Conn) inserted() (tag string, first error) {
	for {
		typ, body, err := c.next()
		if err != nil {
			return tag, both(first, err)
		}
		switch typ {
		case '1', '2', 'D', 'I', 's':
		case 'C':
			tag, err = decodeTag(body)
		case 'E':
			_, ended, refusal := c.refused(body)
			if first == nil {
				first = refusal
			}
			if ended {
				return tag, first
			}
		case 'Z':
			return tag, first
		default:
			err = unexpected(typ, "a statement with parameters")
		}
		if err != nil {
			return tag, both(first, c.fail(err))
		}
	}
}
