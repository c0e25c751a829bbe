//go:build !unix

package duckdb

func limitFiles() { panic("file sizes cannot be limited here") }
