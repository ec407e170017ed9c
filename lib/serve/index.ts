export type {
  ChatAnswerOptions,
  ChatDelta,
  ChatModel,
  ChatModelLoader,
  ChatPart,
  ChatSpeech,
  ChatTurn,
} from './chat-model.js'
export type { ServeLimits, ServeOptions } from './options.js'
export { type Served, serve } from './server.js'
export { TextChat, type TextChatSettings } from './text-chat.js'
