package messages_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
)

func TestACommandCanBePasted(t *testing.T) {
	require.Equal(t, "`rapidbyte-node run DOCUMENT --stream public.orders`", messages.Command("run", messages.Document, "--stream", "public.orders"))
	require.Equal(t, "`rapidbyte-node state reset 'my p.yaml' --stream 'it'\\''s'`", messages.Command("state", "reset", "my p.yaml", "--stream", "it's"))
	require.Equal(t, "''", messages.Word(""))
}

func TestAPositionIsReadable(t *testing.T) {
	at := messages.TupleCursor(messages.Cursor{Type: messages.CursorTimestampTZ, Value: "2026-01-02 03:04:05+00"}, messages.Int64Cursor(7))
	require.Equal(t, "(2026-01-02 03:04:05+00, 7)", messages.Position{At: at}.String())
	require.Equal(t, "7, orders snapshot at 9", messages.Position{At: messages.Int64Cursor(7), Streams: []messages.StreamCursor{
		{Stream: "orders", State: messages.StreamSnapshot, At: messages.Int64Cursor(9)},
	}}.String())
	require.Equal(t, "the beginning", messages.Position{}.String())
	require.Equal(t, "orders detached", messages.Position{Streams: []messages.StreamCursor{{Stream: "orders", State: messages.StreamDetached}}}.String())
	require.Equal(t, "load 2, commit 3, at 7", messages.Receipt{
		Version: messages.Version{Load: 2, Commit: 3}, Position: messages.Position{At: messages.Int64Cursor(7)},
	}.Reached())
	require.Equal(t, "load 2, commit 4, at its end", messages.Receipt{Version: messages.Version{Load: 2, Commit: 4}, Final: true}.Reached())
}
