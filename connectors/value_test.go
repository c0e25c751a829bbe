package connectors_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"rapidbyte.io/node/connectors"
)

const canary = "hunter2-canary"

// holder is how a Secret sits in a configuration.
type holder struct {
	Name     string                       `json:"name" yaml:"name"`
	Password connectors.Secret            `json:"password" yaml:"password"`
	Optional *connectors.Secret           `json:"optional" yaml:"optional"`
	List     []connectors.Secret          `json:"list" yaml:"list"`
	Map      map[string]connectors.Secret `json:"map" yaml:"map"`
	Inner    any                          `json:"inner" yaml:"inner"`
}

func secretHolder() holder {
	s := connectors.NewSecret(canary)
	return holder{"x", s, &s, []connectors.Secret{s}, map[string]connectors.Secret{"k": s}, s}
}

func TestSecretIsNeverFormatted(t *testing.T) {
	s, h := connectors.NewSecret(canary), secretHolder()
	for _, v := range []any{s, &s, h, &h, []any{s}, fmt.Errorf("connect with %v", s)} {
		for verb := rune('A'); verb <= 'z'; verb++ {
			for _, flags := range []string{"%", "%+", "%#", "% ", "%-20", "%020.3"} {
				text := fmt.Sprintf(flags+string(verb), v)
				require.NotContains(t, text, canary, "%s%c of %T", flags, verb, v)
				require.NotContains(t, text, fmt.Sprintf("%x", canary), "%s%c of %T", flags, verb, v)
			}
		}
		require.NotContains(t, fmt.Sprint(v), canary)
		require.NotContains(t, fmt.Sprintln(v), canary)
	}
	require.Equal(t, connectors.Redacted, fmt.Sprint(s))
	require.Equal(t, connectors.Redacted, s.String())
	require.Equal(t, connectors.Redacted, s.GoString())
}

func TestSecretIsNeverLogged(t *testing.T) {
	for name, handler := range map[string]func(out *bytes.Buffer) slog.Handler{
		"text": func(out *bytes.Buffer) slog.Handler { return slog.NewTextHandler(out, nil) },
		"json": func(out *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(out, nil) },
	} {
		var out bytes.Buffer
		s := connectors.NewSecret(canary)
		log := slog.New(handler(&out)).With(slog.Any("with", s))
		log.InfoContext(t.Context(), "connect", slog.Any("secret", s), slog.Any("pointer", &s), slog.Any("config", secretHolder()),
			slog.Group("group", slog.Any("secret", s)), slog.Any("error", fmt.Errorf("connect: %v", s)))
		require.NotContains(t, out.String(), canary, name)
		require.Contains(t, out.String(), connectors.Redacted, name)
	}
}

func TestSecretIsNeverEncoded(t *testing.T) {
	text, err := json.Marshal(secretHolder())
	require.NoError(t, err)
	require.NotContains(t, string(text), canary)
	require.Contains(t, string(text), `"password":"[secret]"`)
	text, err = yaml.Marshal(secretHolder())
	require.NoError(t, err)
	require.NotContains(t, string(text), canary)
	require.Contains(t, string(text), "password: '[secret]'")
}

func TestSecretIsReadAndRevealed(t *testing.T) {
	var h holder
	require.NoError(t, yaml.Unmarshal([]byte("password: "+canary), &h))
	require.Equal(t, canary, h.Password.Reveal())
	require.NoError(t, json.Unmarshal([]byte(`{"password":"other"}`), &h))
	require.Equal(t, "other", h.Password.Reveal())
	require.False(t, h.Password.IsZero())
	require.True(t, connectors.Secret{}.IsZero())
	require.False(t, reflect.TypeFor[connectors.Secret]().Field(0).IsExported(), "reflection of other packages cannot read it")
}

func TestByteSizeReadsUnits(t *testing.T) {
	for text, want := range map[string]connectors.ByteSize{
		"0": 0, "1": 1, "65536": 65536, "64b": 64, "64kb": 64 << 10, "64KB": 64 << 10, "64 mb": 64 << 20, "3Gb": 3 << 30,
		"9223372036854775807": math.MaxInt64, "8589934591gb": 8589934591 << 30,
	} {
		var got connectors.ByteSize
		require.NoError(t, got.UnmarshalText([]byte(text)), text)
		require.Equal(t, want, got, text)
	}
	var padded connectors.ByteSize
	require.NoError(t, padded.UnmarshalText([]byte("\t64 MB \n")))
	require.Equal(t, connectors.ByteSize(64<<20), padded)
	for _, text := range []string{"", "kb", "-1", "-1kb", "1.5mb", "1tb", "64 kib", "1e3", "0x10", "9223372036854775808", "8589934592gb", "1 2", "１kb"} {
		got := connectors.ByteSize(7)
		require.Error(t, got.UnmarshalText([]byte(text)), text)
		require.Equal(t, connectors.ByteSize(7), got, "%q is refused and changes nothing", text)
	}
}

func TestByteSizeWritesTheShortestExactText(t *testing.T) {
	for size, want := range map[connectors.ByteSize]string{
		0: "0", 1: "1", 1023: "1023", 1024: "1kb", 1536: "1536", 64 << 20: "64mb", 1 << 30: "1gb", 3<<30 + 1024: "3145729kb", math.MaxInt64: "9223372036854775807",
	} {
		require.Equal(t, want, size.String())
		text, err := size.MarshalText()
		require.NoError(t, err)
		var back connectors.ByteSize
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, size, back)
	}
}
