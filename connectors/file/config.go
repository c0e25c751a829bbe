package file

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// The formats and compressions, as they stand in a document.
const (
	FormatAuto    = "auto"
	FormatCSV     = "csv"
	FormatJSONL   = "jsonl"
	FormatParquet = "parquet"
	FormatArrow   = "arrow"

	CompressionAuto   = "auto"
	CompressionNone   = "none"
	CompressionGzip   = "gzip"
	CompressionZstd   = "zstd"
	CompressionSnappy = "snappy"
)

// SourceConfig says which files are read and how. The zero value of each field
// is its default.
type SourceConfig struct {
	Path        string            `yaml:"path" jsonschema_description:"File, folder or glob pattern (** crosses folders). streams[].path overrides it per stream."`
	Format      string            `yaml:"format" jsonschema:"enum=auto,enum=csv,enum=jsonl,enum=parquet,enum=arrow,default=auto" jsonschema_description:"Format of the files; auto looks at the content, then at the name."`
	Compression string            `yaml:"compression" jsonschema:"enum=auto,enum=none,enum=gzip,enum=zstd,default=auto" jsonschema_description:"Compression around the files; auto looks at the content."`
	CSV         CSVConfig         `yaml:"csv" jsonschema_description:"How CSV files are written."`
	Columns     map[string]string `yaml:"columns" jsonschema_description:"Types of CSV and JSON Lines columns instead of the inferred ones: int64, int32, int16, float64, float32, bool, text, json, date, timestamp, timestamptz, decimal(p,s), binary."`
}

// CSVConfig is the dialect of CSV files.
type CSVConfig struct {
	Delimiter  string   `yaml:"delimiter" jsonschema_description:"One ASCII character, or tab. Default: a comma, and a tab in files called .tsv."`
	Quote      string   `yaml:"quote" jsonschema_description:"One ASCII character, or none. Default: the double quote."`
	Header     *bool    `yaml:"header" jsonschema:"default=true" jsonschema_description:"Whether the first row names the columns; without it they are called column_1, column_2 and so on."`
	NullValues []string `yaml:"null_values" jsonschema_description:"Unquoted texts that mean NULL in every column. An empty field is NULL in typed columns anyway, and the empty string in text columns unless an empty text is listed here."`
}

// DestinationConfig says where and how files are written. The zero value of each
// field but Path is its default.
type DestinationConfig struct {
	Path           string              `yaml:"path" jsonschema:"required" jsonschema_description:"Folder; created when missing. Each target is a folder in it."`
	Format         string              `yaml:"format" jsonschema:"enum=csv,enum=jsonl,enum=parquet,enum=arrow,default=parquet" jsonschema_description:"Format of the files."`
	Compression    string              `yaml:"compression" jsonschema:"enum=none,enum=gzip,enum=zstd,enum=snappy" jsonschema_description:"Default: snappy for parquet, none for the others. csv and jsonl take gzip and zstd, parquet all, arrow zstd."`
	MaxFileBytes   connectors.ByteSize `yaml:"max_file_bytes" jsonschema:"default=0" jsonschema_description:"A file that has grown to this size is closed and the next one begun; 0 is no limit."`
	MaxRowsPerFile int64               `yaml:"max_rows_per_file" jsonschema:"default=0,minimum=0" jsonschema_description:"Rows of one file at most; 0 is no limit."`
}

// Problems lists everything that is wrong with c.
func (c SourceConfig) Problems() []connectors.Problem {
	var ps []connectors.Problem
	add := func(path, format string, args ...any) {
		ps = append(ps, connectors.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if !doublestar.ValidatePathPattern(c.Path) {
		add("path", "found %q, which is not a valid pattern", c.Path)
	}
	oneOf(add, "format", c.Format, "", FormatAuto, FormatCSV, FormatJSONL, FormatParquet, FormatArrow)
	oneOf(add, "compression", c.Compression, "", CompressionAuto, CompressionNone, CompressionGzip, CompressionZstd)
	d, derr := oneByte(c.CSV.Delimiter)
	if derr != nil {
		add("csv.delimiter", "found %q, expected %v", c.CSV.Delimiter, derr)
	}
	q, qerr := quoteByte(c.CSV.Quote)
	if qerr != nil {
		add("csv.quote", "found %q, expected %v, or none", c.CSV.Quote, qerr)
	}
	if derr == nil && qerr == nil && q != 0 && d == q {
		add("csv.quote", "found %q, which is the delimiter too", c.CSV.Quote)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Columns)) {
		if _, err := parseType(c.Columns[name]); err != nil {
			add("columns."+name, "%v", err)
		}
	}
	if c.Format == FormatParquet || c.Format == FormatArrow {
		if len(c.Columns) > 0 {
			add("columns", "types cannot be declared for %s, which brings its own", c.Format)
		}
	}
	if c.Format == FormatParquet && c.Compression != "" && c.Compression != CompressionAuto && c.Compression != CompressionNone {
		add("compression", "found %q; a parquet file is compressed inside, expected none or auto", c.Compression)
	}
	return ps
}

// Problems lists everything that is wrong with c.
func (c DestinationConfig) Problems() []connectors.Problem {
	var ps []connectors.Problem
	add := func(path, format string, args ...any) {
		ps = append(ps, connectors.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if strings.TrimSpace(c.Path) == "" {
		add("path", "found nothing, expected a folder")
	}
	oneOf(add, "format", c.Format, "", FormatCSV, FormatJSONL, FormatParquet, FormatArrow)
	fits := map[string][]string{
		FormatCSV:     {"", CompressionNone, CompressionGzip, CompressionZstd},
		FormatJSONL:   {"", CompressionNone, CompressionGzip, CompressionZstd},
		FormatArrow:   {"", CompressionNone, CompressionZstd},
		FormatParquet: {"", CompressionNone, CompressionGzip, CompressionZstd, CompressionSnappy},
	}
	if allowed, ok := fits[c.withDefaults().Format]; ok {
		oneOf(add, "compression", c.Compression, allowed...)
	}
	if c.MaxFileBytes < 0 {
		add("max_file_bytes", "found %d, expected 0 or more", c.MaxFileBytes)
	}
	if c.MaxRowsPerFile < 0 {
		add("max_rows_per_file", "found %d, expected 0 or more", c.MaxRowsPerFile)
	}
	return ps
}

func (c DestinationConfig) withDefaults() DestinationConfig {
	if c.Format == "" {
		c.Format = FormatParquet
	}
	if c.Compression == "" {
		c.Compression = CompressionNone
		if c.Format == FormatParquet {
			c.Compression = CompressionSnappy
		}
	}
	return c
}

// delimiter returns the delimiter of the file called name.
func (c CSVConfig) delimiter(name string) byte {
	if b, err := oneByte(c.Delimiter); err == nil && b != 0 {
		return b
	}
	if ext := extension(name); ext == ".tsv" || ext == ".tab" {
		return '\t'
	}
	return ','
}

// quote returns the quote character, 0 for none.
func (c CSVConfig) quote() byte {
	if c.Quote == "" {
		return '"'
	}
	b, _ := quoteByte(c.Quote)
	return b
}

func (c CSVConfig) header() bool { return c.Header == nil || *c.Header }

// oneByte reads a delimiter; 0 means the default.
func oneByte(s string) (byte, error) {
	switch {
	case s == "":
		return 0, nil
	case s == "tab" || s == `\t`:
		return '\t', nil
	case len(s) == 1 && s[0] < 0x80 && s != "\n" && s != "\r" && s != "\x00":
		return s[0], nil
	}
	return 0, errors.New("one ASCII character or tab")
}

func quoteByte(s string) (byte, error) {
	if s == "none" {
		return 0, nil
	}
	return oneByte(s)
}

func oneOf(add func(path, format string, args ...any), path, found string, allowed ...string) {
	if slices.Contains(allowed, found) {
		return
	}
	named := slices.DeleteFunc(slices.Clone(allowed), func(s string) bool { return s == "" })
	add(path, "found %q, expected one of %s", found, strings.Join(named, ", "))
}

// configError makes one error of all problems.
func configError(what string, ps []connectors.Problem) error {
	if len(ps) == 0 {
		return nil
	}
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Path + ": " + p.Message
	}
	return &connectors.Error{
		Op: "configure the file " + what, Kind: connectors.KindConfig, Commit: connectors.CommitNone,
		Code: messages.CodeDocValue, Err: errors.New(strings.Join(lines, "; ")),
	}
}
