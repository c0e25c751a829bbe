package connectors_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

func TestKindOfFindsTheOutermostKind(t *testing.T) {
	transient := &connectors.Error{Op: "copy", Kind: connectors.KindTransient, Err: errors.New("reset")}
	fence := &connectors.FencedError{Registered: messages.Token{Epoch: 4, Attempt: 2}}
	for name, c := range map[string]struct {
		err  error
		want connectors.Kind
	}{
		"unclassified":            {errors.New("boom"), connectors.KindInternal},
		"cancelled":               {context.Canceled, connectors.KindInternal},
		"plain":                   {transient, connectors.KindTransient},
		"wrapped":                 {fmt.Errorf("write: %w", transient), connectors.KindTransient},
		"around another":          {&connectors.Error{Op: "read", Kind: connectors.KindGap, Err: transient}, connectors.KindGap},
		"joined":                  {errors.Join(errors.New("close"), transient), connectors.KindTransient},
		"fenced":                  {fmt.Errorf("open: %w", fence), connectors.KindFenced},
		"says so itself":          {fmt.Errorf("write: %w", &failpoint.Error{Point: failpoint.DestCopyMid}), connectors.KindTransient},
		"fenced, wrapped by kind": {&connectors.Error{Op: "open", Kind: connectors.KindConfig, Err: fence}, connectors.KindFenced},
	} {
		require.Equal(t, c.want, connectors.KindOf(c.err), name)
	}
}

func TestErrorSaysWhatWhereAndWhy(t *testing.T) {
	cause := errors.New("want 3 fields, got 2")
	err := &connectors.Error{
		Op: "read csv row", Kind: connectors.KindData, Place: messages.Place{File: "a.csv", Line: 7, Column: 3, Field: "price"}, Err: cause,
	}
	require.EqualError(t, err, "read csv row (a.csv:7:3, field price): want 3 fields, got 2")
	require.ErrorIs(t, err, cause)
	require.EqualError(t, &connectors.Error{Op: "open target"}, "open target")
	require.EqualError(t, &connectors.Error{Op: "open target", Err: cause}, "open target: want 3 fields, got 2")
	require.EqualError(t, &connectors.FencedError{Registered: messages.Token{Epoch: 9, Attempt: 3}}, "fenced by epoch 9, attempt 3")
}
