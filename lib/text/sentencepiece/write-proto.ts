import type { SentencePieceProto } from './proto.js'

export interface WrittenProto extends Pick<SentencePieceProto, 'byteFallback' | 'bosId' | 'eosId' | 'padId' | 'unkId'> {
  pieces: readonly string[]
  scores: ArrayLike<number>
  types: ArrayLike<number>
  algorithm: 'unigram' | 'bpe'
  addDummyPrefix: boolean
  removeExtraWhitespaces: boolean
  /** Precompiled character map. Default: none. */
  charsmap?: Uint8Array
}

/** Return the bytes of a SentencePiece `.model`, for `readProto` and the SentencePiece library. */
export function writeProto(proto: WrittenProto): Buffer {
  const parts: Buffer[] = []
  for (const [id, piece] of proto.pieces.entries()) {
    parts.push(message(1, [text(1, piece), float(2, proto.scores[id] as number), whole(3, proto.types[id] as number)]))
  }
  parts.push(
    message(2, [
      whole(3, proto.algorithm === 'bpe' ? 2 : 1),
      whole(35, Number(proto.byteFallback)),
      whole(40, proto.unkId),
      whole(41, proto.bosId),
      whole(42, proto.eosId),
      whole(43, proto.padId),
    ]),
    message(3, [
      ...(proto.charsmap?.length ? [bytes(2, Buffer.from(proto.charsmap))] : []),
      whole(3, Number(proto.addDummyPrefix)),
      whole(4, Number(proto.removeExtraWhitespaces)),
      whole(5, 1), // spaces become ▁
    ]),
  )
  return Buffer.concat(parts)
}

const VARINT = 0
const BYTES = 2
const FIXED32 = 5

function varint(value: bigint): Buffer {
  const bytes: number[] = []
  let left = value
  for (; left > 127n; left >>= 7n) bytes.push(Number(left & 127n) | 128)
  bytes.push(Number(left))
  return Buffer.from(bytes)
}

const key = (field: number, wire: number): Buffer => varint(BigInt(field * 8 + wire))
/** Encode an integer; negative ones take ten bytes. */
const whole = (field: number, value: number): Buffer =>
  Buffer.concat([key(field, VARINT), varint(BigInt.asUintN(64, BigInt(value)))])

function bytes(field: number, content: Buffer): Buffer {
  return Buffer.concat([key(field, BYTES), varint(BigInt(content.length)), content])
}

const text = (field: number, content: string): Buffer => bytes(field, Buffer.from(content))
const message = (field: number, parts: Buffer[]): Buffer => bytes(field, Buffer.concat(parts))

function float(field: number, value: number): Buffer {
  const content = Buffer.alloc(4)
  content.writeFloatLE(value)
  return Buffer.concat([key(field, FIXED32), content])
}
