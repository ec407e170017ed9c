import { DataError } from '../../base/errors.js'
import { MARK } from './normalize.js'
import { PieceType, type SentencePieceProto } from './proto.js'

// Pieces may have up to 64 million characters, and V8's strings at most 2^29.
const LONGEST_TEXT = 2 ** 28

/**
 * Decode ids as SentencePiece does: marks become spaces, the added leading space is removed, bytes become characters (U+FFFD for each
 * invalid byte), control pieces are dropped, unknown pieces become the model's unknown surface.
 * @param other texts of ids outside the model
 */
export function decodePieces(
  proto: SentencePieceProto,
  ids: readonly number[],
  other: (id: number) => string | undefined,
): string {
  const { addDummyPrefix, removeExtraWhitespaces } = proto.normalizer
  const trims = addDummyPrefix || removeExtraWhitespaces
  let text = ''
  let bytes: number[] = []
  let trimmed = false
  for (const id of ids) {
    if (text.length > LONGEST_TEXT)
      throw new DataError(`ids: expected a text of at most ${LONGEST_TEXT} characters, got more`)
    const type = proto.types[id]
    if (type === PieceType.byte) {
      bytes.push(Number.parseInt(proto.pieces[id]!.slice(3, 5), 16))
      continue
    }
    text += textOf(bytes)
    bytes = []
    const foreign = other(id)
    if (foreign !== undefined) text += foreign
    else if (type === PieceType.unknown) text += proto.unkSurface
    else if (type !== undefined && type !== PieceType.control) {
      let piece = proto.pieces[id]!
      if (trims && text === '' && !trimmed && piece.startsWith(MARK)) {
        piece = piece.slice(1)
        // If the model merges spaces, all leading spaces are removed.
        trimmed = !removeExtraWhitespaces
      }
      text += piece.replaceAll(MARK, ' ')
    }
  }
  return text + textOf(bytes)
}

/** Decode UTF-8, with one U+FFFD for each invalid byte. */
function textOf(bytes: readonly number[]): string {
  let text = ''
  for (let i = 0; i < bytes.length; ) {
    const length = lengthAt(bytes, i)
    text += length === 0 ? '\ufffd' : Buffer.from(bytes.slice(i, i + length)).toString('utf8')
    i += Math.max(length, 1)
  }
  return text
}

function lengthAt(bytes: readonly number[], at: number): number {
  const first = bytes[at]!
  const length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0
  if (length === 0 || at + length > bytes.length) return 0
  let code = length === 1 ? first : first & (0xff >> (length + 1))
  for (let i = 1; i < length; i++) {
    if ((bytes[at + i]! & 0xc0) !== 0x80) return 0
    code = (code << 6) | (bytes[at + i]! & 0x3f)
  }
  const least = [0, 0, 0x80, 0x800, 0x10000][length]!
  return code < least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : length
}
