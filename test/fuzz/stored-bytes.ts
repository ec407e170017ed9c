/** The bytes of one tensor of a safetensors file: files of other formats lie in fixtures as such. */
export function safetensorsBytes(file: Buffer, tensor: string): Uint8Array {
  const length = Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, 8 + length)) as Record<string, { data_offsets: [number, number] }>
  const [from, to] = header[tensor]!.data_offsets
  return Uint8Array.from(file.subarray(8 + length + from, 8 + length + to))
}
