// Package generator is a source of made-up rows and a destination that keeps none,
// for tests, examples and benchmarks.
//
// # Source
//
// A value depends only on the seed, the name of the stream, the name of its column
// and the number of its row. Any row can be computed without the ones before it:
// splits are exact ranges, and resuming at a row is exact, on any node. Streams may
// have any name. Batches are written into raw buffers, whose size is known from the
// columns, so every row of a stream has the same number of bytes.
//
// # Blackhole
//
// The destination accepts, counts and acknowledges. It keeps receipts, epochs and
// tokens as any destination does, but only as long as the value lives: it declares
// itself connectors.Forgetful, and the engine starts each run over.
package generator
