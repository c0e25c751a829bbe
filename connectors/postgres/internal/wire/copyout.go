package wire

import (
	"context"
)

// CopyOut runs COPY .. TO STDOUT and calls row with the payload of each message,
// valid until row returns. It returns the number of rows in the command tag. An
// error of row ends the connection and is returned as it is.
func (c *Conn) CopyOut(ctx context.Context, sql string, row func(payload []byte) error) (rows int64, err error) {
	return c.copyOut(ctx, sql, row)
}

// CopyOutMessages is CopyOut for those who understand messages: take gets as many of them
// as have arrived, whole, each with its type, which is d, and its length.
func (c *Conn) CopyOutMessages(ctx context.Context, sql string, take func(messages []byte) error) (rows int64, err error) {
	return c.copyOut(ctx, sql, func(body []byte) error { return take(c.in.run('d', len(body))) })
}

func (c *Conn) copyOut(ctx context.Context, sql string, row func(body []byte) error) (rows int64, err error) {
	if err := c.begin(); err != nil {
		return 0, err
	}
	defer c.end()
	var declined error // by row
	err = c.watched(ctx, "copy out", func() error {
		if err := c.query(sql); err != nil {
			return err
		}
		if err := c.expectCopy('H', "the start of a copy out"); err != nil {
			return err
		}
		var err error
		rows, declined, err = c.copyRows(row)
		return err
	})
	if declined != nil {
		return rows, declined
	}
	return rows, err
}

// expectCopy reads the answer to a COPY. After a refusal the server is ready again.
func (c *Conn) expectCopy(want byte, during string) error {
	var first error
	for {
		typ, body, err := c.next()
		switch {
		case err != nil:
			return both(first, err)
		case typ == want && first == nil:
			return nil
		case typ == 'E':
			_, ended, refusal := c.refused(body)
			if first == nil {
				first = refusal
			}
			if ended {
				return first
			}
		case typ == 'Z' && first != nil:
			return first
		default:
			return both(first, c.fail(unexpected(typ, during)))
		}
	}
}

// copyRows gives payloads to row until the server is ready again.
func (c *Conn) copyRows(row func([]byte) error) (rows int64, declined, first error) {
	for {
		typ, body, err := c.next()
		if err != nil {
			return rows, nil, both(first, err)
		}
		switch typ {
		case 'd':
			if err := row(body); err != nil {
				return rows, err, c.fail(err)
			}
		case 'c':
		case 'C':
			var tag string
			tag, err = decodeTag(body)
			rows = rowsOf(tag)
		case 'E':
			_, ended, refusal := c.refused(body)
			if first == nil {
				first = refusal
			}
			if ended {
				return rows, nil, first
			}
		case 'Z':
			return rows, nil, first
		default:
			err = unexpected(typ, "a copy out")
		}
		if err != nil {
			return rows, nil, both(first, c.fail(err))
		}
	}
}
