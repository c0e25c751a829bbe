// Package codec turns rows of PostgreSQL's binary COPY format into Arrow record
// batches and back. It does no I/O.
//
// A Type is a column type as the catalogue has it. Field says in which Arrow
// field a column is read and writes the Type into the field's metadata; TypeOf
// finds the column type in which a field is kept, from that metadata or from its
// Arrow type. A type without an exact Arrow type travels as text: the server's own
// text form goes out and comes back through the server's own parser.
//
// A Decoder takes the payloads of COPY TO STDOUT (FORMAT binary) cut anywhere and
// builds batches in raw buffers. An Encoder writes batches as rows of COPY FROM
// STDIN (FORMAT binary), or as the parameters of an INSERT. Both choose an
// operation per column once, and allocate nothing per row. What is usual has a short
// way (Decoder.AppendMessages, cells that write themselves); what is not takes the
// long one, which alone knows errors, so the two never differ in what they find.
//
// Neither ever changes a value: what the other side cannot hold exactly is a
// *ValueError that names column and row, and a pair of types without an exact
// conversion is a *FitError.
package codec
