import { ConfigError } from '../base/errors.js'
import type { Fields } from './fields.js'

/** Use of a key of tokenizer_config.json. */
export type KeyUse = 'used' | 'without effect' | 'refused' | 'reported'

const names = (text: string): string[] => text.trim().split(/\s+/)

/** Keys that `readConfig`, the readers of vocabulary files or {@link CtcTokenizer} read. */
const used = new Set(
  names(`
    bos_token eos_token unk_token sep_token pad_token cls_token mask_token additional_special_tokens extra_special_tokens
    model_specific_special_tokens added_tokens_decoder add_bos_token add_eos_token add_prefix_space do_lower_case
    strip_accents tokenize_chinese_chars clean_up_tokenization_spaces legacy padding_side truncation_side model_max_length
    max_len tokenizer_class chat_template word_delimiter_token replace_word_delimiter_char target_lang`),
)

/**
 * Keys that affect neither ids nor text, as in transformers 5: locations of files, choice of a class, defaults of call arguments,
 * and options of the Python tokenizers that transformers 5 no longer has.
 */
const withoutEffect = new Set(
  names(`
    name_or_path tokenizer_file vocab_file merges_file normalizer_file special_tokens_map_file added_tokens_file gguf_file
    init_inputs auto_map processor_class device_map is_local local_files_only files_loaded verbose backend
    slow_tokenizer_class use_fast from_slow _commit_hash transformers_version tokenizer_object
    model_input_names response_schema response_template chat_control_tokens use_default_system_prompt
    padding truncation max_length stride truncation_strategy pad_token_type_id pad_to_multiple_of return_token_type_ids
    token_type_ids_pattern token_type_ids_include_special_tokens special_tokens_pattern errors
    spaces_between_special_tokens sp_model_kwargs clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
    extra_ids trim_offsets language task never_split`),
)

/** Keys that change ids in transformers, with the values that do not. */
const only: Readonly<Record<string, readonly unknown[]>> = {
  split_special_tokens: [false],
  fix_mistral_regex: [false],
  do_basic_tokenize: [true],
  predict_timestamps: [false],
}

/** Return the use of a key of tokenizer_config.json or special_tokens_map.json. */
export function keyUse(key: string, value: unknown): KeyUse {
  if (used.has(key) || isModelToken(key, value)) return 'used'
  if (withoutEffect.has(key)) return 'without effect'
  if (!Object.hasOwn(only, key)) return 'reported'
  return value === null || only[key]!.includes(value) ? 'without effect' : 'refused'
}

/** Whether a key defines a special token of a kind of model, such as `image_token`. */
export const isModelToken = (key: string, value: unknown): boolean =>
  key.endsWith('_token') && !key.startsWith('add_') && (typeof value === 'string' || isAddedToken(value))

const isAddedToken = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && typeof (value as { content?: unknown }).content === 'string'

/** Keys that were reported already. */
const reported = new Set<string>()
const MAX_REPORTED = 1000

/**
 * Refuse keys whose value would change ids, and warn once about each unknown key.
 * @throws ConfigError naming file and key
 */
export function checkKeys(fields: Fields): void {
  const unknown: string[] = []
  for (const key of Object.keys(fields.values)) {
    const value = fields.values[key]
    const use = keyUse(key, value)
    if (use === 'refused') {
      throw new ConfigError(
        `${fields.file}: ${fields.path(key)}: expected ${only[key]!.join(' or ')}, got ${String(value)}. This value changes token ids and is not supported. Remove the key to ignore it.`,
        { file: fields.file, entry: fields.path(key) },
      )
    }
    if (use === 'reported') unknown.push(key)
  }
  reportKeys(fields.file, unknown)
}

/** Warn about unused keys, once per key and process. */
export function reportKeys(file: string, keys: readonly string[]): void {
  const fresh = keys.filter((key) => !reported.has(key)).slice(0, MAX_REPORTED - reported.size)
  if (fresh.length === 0) return
  for (const key of fresh) reported.add(key)
  const shown = fresh.slice(0, 20).map((key) => JSON.stringify(key.slice(0, 100)))
  const more = fresh.length > shown.length ? ` and ${fresh.length - shown.length} more` : ''
  process.emitWarning(`${file}: the tokenizer does not use ${shown.join(', ')}${more}`, 'TokenizerWarning')
}
