import { DataError } from '../../base/errors.js'
import { quoted } from '../../files/byte-source.js'
import { LONGEST_PIECE } from '../models/unigram.js'
import { Message } from './protobuf.js'

export const PieceType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

/** The fields of a SentencePiece `.model` that encoding and decoding need. */
export interface SentencePieceProto {
  pieces: string[]
  scores: Float32Array
  types: Uint8Array
  algorithm: 'unigram' | 'bpe' | 'word' | 'char'
  byteFallback: boolean
  whitespaceIsSuffix: boolean
  unkSurface: string
  normalizer: NormalizerSpec
  denormalizer: NormalizerSpec | null
  /** Id from the trainer settings; -1 for none. */
  bosId: number
  eosId: number
  padId: number
  unkId: number
}

export interface NormalizerSpec {
  charsmap: Uint8Array
  addDummyPrefix: boolean
  removeExtraWhitespaces: boolean
  escapeWhitespaces: boolean
}

const algorithms = [undefined, 'unigram', 'bpe', 'word', 'char'] as const
const MAX_PIECES = 1 << 20

/**
 * Read a `.model` (https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto).
 * @throws DataError with the fields `file` and `byte`
 */
export function readProto(bytes: Uint8Array, file: string): SentencePieceProto {
  const fail = (what: string, byte: number): never => {
    throw new DataError(`${file}: expected a SentencePiece model, but the file ${what} at byte ${byte}`, { file, byte })
  }
  const model: SentencePieceProto = {
    pieces: [],
    scores: new Float32Array(0),
    types: new Uint8Array(0),
    algorithm: 'unigram',
    byteFallback: false,
    whitespaceIsSuffix: false,
    unkSurface: ' \u2047 ',
    normalizer: normalizerDefaults(),
    denormalizer: null,
    bosId: 1,
    eosId: 2,
    padId: -1,
    unkId: 0,
  }
  const scores: number[] = []
  const types: number[] = []
  const message = new Message(bytes, fail)
  while (message.next()) {
    if (message.field === 1) {
      if (model.pieces.length === MAX_PIECES) fail(`has more than ${MAX_PIECES} pieces`, message.at)
      readPiece(message.message(), model.pieces, scores, types)
    } else if (message.field === 2) readTrainer(message.message(), model)
    else if (message.field === 3) readNormalizer(message.message(), model.normalizer)
    else if (message.field === 5) readNormalizer(message.message(), (model.denormalizer ??= normalizerDefaults()))
    else message.skip()
  }
  model.scores = Float32Array.from(scores)
  model.types = Uint8Array.from(types)
  return checked(model, file)
}

function normalizerDefaults(): NormalizerSpec {
  return { charsmap: new Uint8Array(0), addDummyPrefix: true, removeExtraWhitespaces: true, escapeWhitespaces: true }
}

function readPiece(message: Message, pieces: string[], scores: number[], types: number[]): void {
  let piece = ''
  let score = 0
  let type: number = PieceType.normal
  while (message.next()) {
    if (message.field === 1) piece = message.text()
    else if (message.field === 2) score = message.float()
    else if (message.field === 3) type = message.whole()
    else message.skip()
  }
  if (type < 1 || type > 6) message.fail(`has a piece of the type ${type}`, message.end)
  if (Number.isNaN(score)) message.fail('has a piece whose score is not a number', message.end)
  pieces.push(piece)
  scores.push(score)
  types.push(type)
}

function readTrainer(message: Message, model: SentencePieceProto): void {
  while (message.next()) {
    switch (message.field) {
      case 3:
        model.algorithm = algorithms[message.whole()] ?? message.fail('has an unknown model type', message.end)
        break
      case 24:
        model.whitespaceIsSuffix = message.boolean()
        break
      case 35:
        model.byteFallback = message.boolean()
        break
      case 40:
        model.unkId = message.int32()
        break
      case 41:
        model.bosId = message.int32()
        break
      case 42:
        model.eosId = message.int32()
        break
      case 43:
        model.padId = message.int32()
        break
      case 44:
        model.unkSurface = message.text()
        break
      default:
        message.skip()
    }
  }
}

function readNormalizer(message: Message, spec: NormalizerSpec): void {
  while (message.next()) {
    if (message.field === 2) spec.charsmap = message.view()
    else if (message.field === 3) spec.addDummyPrefix = message.boolean()
    else if (message.field === 4) spec.removeExtraWhitespaces = message.boolean()
    else if (message.field === 5) spec.escapeWhitespaces = message.boolean()
    else message.skip()
  }
}

/** Check the conditions that SentencePiece checks when it loads a model. */
function checked(model: SentencePieceProto, file: string): SentencePieceProto {
  const fail = (what: string, fields: Record<string, unknown> = {}): never => {
    throw new DataError(`${file}: ${what}`, { file, ...fields })
  }
  const texts = new Set<string>()
  let unknown = -1
  let bytes = 0
  for (const [id, piece] of model.pieces.entries()) {
    const entry = `pieces[${id}]`
    if (piece === '') fail(`piece ${id}: expected a non-empty text`, { entry })
    const isSought = model.algorithm === 'unigram' || model.types[id] === PieceType.userDefined
    if (isSought && piece.length > LONGEST_PIECE) {
      fail(`piece ${id}: expected at most ${LONGEST_PIECE} characters, got ${piece.length}`, { entry })
    }
    if (texts.has(piece)) fail(`piece ${id}: expected a new text, got the duplicate ${quoted(piece)}`, { entry })
    texts.add(piece)
    if (model.types[id] === PieceType.unknown) {
      if (unknown !== -1) fail(`piece ${id}: expected one unknown piece, got two: ${unknown} and ${id}`, { entry })
      unknown = id
    } else if (model.types[id] === PieceType.byte) {
      if (!/^<0x[0-9A-F]{2}>$/.test(piece))
        fail(`piece ${id}: expected a byte such as <0x0A>, got ${quoted(piece)}`, { entry })
      bytes++
    }
  }
  if (unknown === -1) fail('expected an unknown piece, got none')
  if (model.byteFallback && bytes !== 256) fail(`expected 256 byte pieces for byte fallback, got ${bytes}`)
  model.unkId = unknown
  return model
}
