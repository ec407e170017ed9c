import { join } from 'node:path'
import { writeAtomicallySync } from '../base/atomic.js'
import { filesIn, writeFolderAtomicallySync } from '../base/atomic-folder.js'
import { DataError } from '../base/errors.js'
import type { AddedTokens } from './added-tokens.js'
import { specialNames, type TokenizerConfig } from './config.js'
import type { Fields } from './fields.js'
import { Bpe } from './models/bpe.js'
import type { TokenModel } from './models/model.js'
import { Unigram } from './models/unigram.js'

/** Write a tokenizer into a directory. */
export type Saver = (directory: string, addedTokens: AddedTokens, config: TokenizerConfig) => void

/** Return a saver of tokenizer.json as it was read, with the tokens added since. */
export function specSaver(fields: Fields, model: TokenModel): Saver {
  const { vocab: _vocab, merges: _merges, ...modelFields } = fields.object('model').values
  const { model: _model, added_tokens: _added, ...rest } = fields.values
  return (directory, addedTokens, config) => {
    const spec = {
      version: '1.0',
      truncation: null,
      padding: null,
      ...rest,
      added_tokens: [...addedTokens.entries()].sort(([a], [b]) => a - b).map(([id]) => written(addedTokens, id)),
      model: { type: model.kind, ...modelFields, ...contents(model) },
    }
    write(directory, 'tokenizer.json', JSON.stringify(spec), addedTokens, config)
  }
}

/** Return a saver of the unchanged bytes of a `.model`; further settings go into tokenizer_config.json. */
export function sentencePieceSaver(bytes: Uint8Array): Saver {
  return (directory, addedTokens, config) => {
    write(directory, 'tokenizer.model', bytes, addedTokens, config)
  }
}

function contents(model: TokenModel): Record<string, unknown> {
  if (model instanceof Unigram) return { vocab: model.pieces }
  const vocab: Record<string, number> = Object.create(null)
  for (const [token, id] of [...model.entries()].sort(([, a], [, b]) => a - b)) vocab[token] = id
  return model instanceof Bpe ? { vocab, merges: model.pairs() } : { vocab }
}

function written(addedTokens: AddedTokens, id: number): Record<string, unknown> {
  const token = addedTokens.get(id)!
  return {
    id,
    content: token.content,
    single_word: token.singleWord,
    lstrip: token.lstrip,
    rstrip: token.rstrip,
    normalized: token.normalized,
    special: token.special,
  }
}

function write(
  directory: string,
  name: string,
  content: string | Uint8Array,
  addedTokens: AddedTokens,
  config: TokenizerConfig,
): void {
  const decoder: Record<string, unknown> = Object.create(null)
  for (const [id] of addedTokens.entries()) {
    const { id: _id, ...token } = written(addedTokens, id)
    decoder[id] = token
  }
  const special: Record<string, string> = Object.create(null)
  for (const name of specialNames) {
    const token = config.special[name]
    if (token !== undefined) special[`${name}_token`] = token
  }
  const templates = Object.entries(config.chatTemplates).map(([name, template]) => ({ name, template }))
  const only = templates.length === 1 && templates[0]!.name === 'default' ? templates[0]!.template : templates
  const whole = {
    add_bos_token: config.addBosToken,
    add_eos_token: config.addEosToken,
    add_prefix_space: config.addPrefixSpace,
    do_lower_case: config.doLowerCase,
    legacy: config.legacy,
    added_tokens_decoder: decoder,
    additional_special_tokens: config.additionalSpecial,
    ...special,
    chat_template: templates.length > 0 ? only : undefined,
    clean_up_tokenization_spaces: config.cleanUpSpaces,
    model_max_length: config.modelMaxLength ?? 1e30,
    padding_side: config.paddingSide ?? 'right',
    truncation_side: config.truncationSide ?? 'right',
    tokenizer_class: config.tokenizerClass ?? 'PreTrainedTokenizerFast',
  }
  const save = (folder: string) => {
    writeAtomicallySync(join(folder, name), DataError, content)
    writeAtomicallySync(join(folder, 'tokenizer_config.json'), DataError, `${JSON.stringify(whole, null, 2)}\n`)
    writeAtomicallySync(join(folder, 'special_tokens_map.json'), DataError, `${JSON.stringify(special, null, 2)}\n`)
  }
  // Loading prefers these files, in place of tokenizer.model and of the template in tokenizer_config.json.
  writeFolderAtomicallySync(directory, DataError, save, (earlier) =>
    filesIn(earlier, /^(?:tokenizer\.json|chat_template\.jinja)$/),
  )
}
