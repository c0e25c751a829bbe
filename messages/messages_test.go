package messages_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/messages"
)

// TestEveryCodeIsInTheCatalogueOnce reads the constants from the source, so that a
// new one cannot be forgotten.
func TestEveryCodeIsInTheCatalogueOnce(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	require.NoError(t, err)
	seen := map[messages.Code]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		if lit, ok := v.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			text, err := strconv.Unquote(lit.Value)
			require.NoError(t, err)
			if regexp.MustCompile(`^RB-\d{4}$`).MatchString(text) {
				require.False(t, seen[messages.Code(text)], "%s stands for two things", text)
				seen[messages.Code(text)] = true
			}
		}
		return true
	})
	require.Greater(t, len(seen), 30)
	require.Len(t, messages.Codes(), len(seen))
	for c := range seen {
		info, ok := c.Info()
		require.True(t, ok, "%s has no entry", c)
		require.NotEmpty(t, info.Title)
		require.NotEmpty(t, info.Means)
		require.NotEmpty(t, info.Next)
	}
}

func TestExitCodeFollowsTheClass(t *testing.T) {
	for code, exit := range map[messages.Code]int{
		messages.CodeInternal: 70, messages.CodeUsage: 64, messages.CodeRowBroken: 10, messages.CodeDocKey: 2, messages.CodeSchemaType: 3,
		messages.CodeSource: 4, messages.CodeDest: 5, messages.CodeState: 6, messages.CodeCancelled: 7, messages.CodeFenced: 8,
		"RB-9001": 9, "nonsense": 70, "": 70,
	} {
		require.Equal(t, exit, code.Exit(), "%s", code)
	}
}

func TestPlaceNamesWhatIsKnown(t *testing.T) {
	p := messages.Place{Stream: "orders", Row: 7, File: "a.csv"}.Or(messages.Place{Pipeline: "p", Stream: "other", Stage: "source", File: "b.csv"})
	require.Equal(t, "pipeline p, stream orders, stage source, file a.csv, row 7", p.String())
	require.Equal(t, "doc.yaml:3:5, field source.use", messages.Place{File: "doc.yaml", Line: 3, Column: 5, Field: "source.use"}.String())
}

func TestFootprintOfASliceIsThatOfTheSlice(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	defer mem.AssertSize(t, 0)
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "i", Type: arrow.PrimitiveTypes.Int64},
		{Name: "b", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
		{Name: "s", Type: arrow.BinaryTypes.String},
		{Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int32)},
		{Name: "d", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}},
	}, nil)
	b := array.NewRecordBuilder(mem, schema)
	defer b.Release()
	for i := range 100 {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		if i%2 == 0 {
			b.Field(1).AppendNull()
		} else {
			b.Field(1).(*array.BooleanBuilder).Append(true)
		}
		b.Field(2).(*array.StringBuilder).Append("0123456789")
		l := b.Field(3).(*array.ListBuilder)
		l.Append(true)
		l.ValueBuilder().(*array.Int32Builder).AppendValues([]int32{1, 2}, nil)
		require.NoError(t, b.Field(4).(*array.BinaryDictionaryBuilder).AppendString("x"))
	}
	whole := messages.ArrowRows{Record: b.NewRecordBatch()}
	defer whole.Release()
	slice := whole.Slice(10, 20)
	defer slice.Release()
	require.EqualValues(t, 10, slice.Len())
	require.InDelta(t, 10*8+2+2+10*10+44+44+10*8+10+5+8, slice.Bytes(), 30)
	require.Greater(t, whole.Bytes(), 8*slice.Bytes())
}

func TestReceiptSurvivesJSON(t *testing.T) {
	r := messages.Receipt{
		Part: "orders/0", Load: "orders", Version: messages.Version{Load: 2, Commit: 7}, Token: messages.Token{Epoch: 3, Attempt: 4},
		Position: messages.Position{
			At:      messages.TupleCursor(messages.Int64Cursor(1<<62), messages.Cursor{Type: messages.CursorText, Value: "a\x00\u2028"}),
			Streams: []messages.StreamCursor{{Stream: "s", State: messages.StreamSnapshot, At: messages.LSNCursor(1 << 63)}},
		},
		Final: true, Rows: messages.Counts{Read: 5, Arrived: 4, Applied: 3, Rejected: 1},
	}
	text, err := json.Marshal(r)
	require.NoError(t, err)
	var back messages.Receipt
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, r, back)
	require.True(t, r.Position.Equal(back.Position))
}
