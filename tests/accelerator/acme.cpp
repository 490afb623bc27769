// Acme A1: a SIMULATED accelerator, for tests only.
//
// A PrivateUse1 backend of torch whose cards use host memory and compute on the host. What it simulates is how a card
// behaves: memory of its own with counters and a limit, streams in which work goes on after its launch has returned,
// generators, TF32, sums whose order is left to chance, several cards. No time and no figure that comes from it says anything about any hardware.
//
// Python gives the device type its name, opens the cards and reads the environment; nothing of that is in here.

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/Resize.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GeneratorImpl.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>
#include <torch/version.h>

#if __has_include(<c10/core/CachingDeviceAllocator.h>)
#include <c10/core/CachingDeviceAllocator.h>
#endif

namespace {

using at::IntArrayRef;
using at::Scalar;
using at::ScalarType;
using at::Tensor;
using Clock = std::chrono::steady_clock;

constexpr auto kAcme = c10::DeviceType::PrivateUse1;

// How fast a card is. Products take longer than the host needs for them, so that their launch returns while the card is
// busy; everything else is fast enough for tiny models to train about as quickly as on the host.
constexpr double kLaunchS = 3e-6;
constexpr double kBytesPerS = 20e9;
constexpr double kProductFlopsPerS = 20e9;
constexpr double kProductsSlowerThanHost = 2;
constexpr double kConvolutionFlopsPerS = 100e9;

constexpr size_t kRoundBytes = 512;

// A seeded generator of one card; its numbers are those of the host's generator with the same seed.
struct AcmeGenerator final : c10::GeneratorImpl {
  explicit AcmeGenerator(c10::DeviceIndex index, at::Generator host = at::detail::createCPUGenerator())
      : GeneratorImpl({kAcme, index}, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)), host(std::move(host)) {}

  void set_current_seed(uint64_t seed) override { host.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { host.set_offset(offset); }
  uint64_t get_offset() const override { return host.get_offset(); }
  uint64_t current_seed() const override { return host.current_seed(); }
  uint64_t seed() override { return host.unsafeGetGeneratorImpl()->seed(); }
  void set_state(const c10::TensorImpl& state) override { host.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return host.unsafeGetGeneratorImpl()->get_state();
  }
  AcmeGenerator* clone_impl() const override { return new AcmeGenerator(device().index(), host.clone()); }

  at::Generator host;
};

struct Block {
  void* data;
  size_t block_bytes;
  size_t tensor_bytes;
  c10::DeviceIndex card;
};

struct Counter {
  size_t current = 0;
  size_t peak = 0;

  void add(size_t bytes) { peak = std::max(peak, current += bytes); }
  void remove(size_t bytes) { current -= bytes; }
  void reset_peak() { peak = current; }
};

// What every process can see of this process's use of a card; the management library reads it.
struct Usage {
  std::atomic<int64_t> reserved_bytes{0};
  std::atomic<double> busy_until_s{0};
};

// One card: its memory, its streams and its generator.
class Card {
 public:
  Card(c10::DeviceIndex index, size_t capacity_bytes, const std::string& usage_file)
      : generator(at::make_generator<AcmeGenerator>(index)), index_(index), capacity_bytes_(capacity_bytes),
        usage_(open_usage(usage_file)) {}

  Block* allocate(size_t bytes) {
    std::lock_guard lock(mutex_);
    const size_t rounded = (bytes + kRoundBytes - 1) / kRoundBytes * kRoundBytes;
    Block* cached = take_cached(rounded);
    Block* block = cached ? cached : new_block(rounded);
    block->tensor_bytes = rounded;
    allocated_.add(rounded);
    return block;
  }

  void release(Block* block) {
    std::lock_guard lock(mutex_);
    allocated_.remove(block->tensor_bytes);
    cached_.emplace(block->block_bytes, block);
  }

  void empty_cache() {
    std::lock_guard lock(mutex_);
    drop_cached();
  }

  // Bytes: allocated, its peak, reserved, its peak, capacity.
  std::vector<int64_t> memory() {
    std::lock_guard lock(mutex_);
    std::vector<int64_t> bytes;
    for (size_t value : {allocated_.current, allocated_.peak, reserved_.current, reserved_.peak, capacity_bytes_}) {
      bytes.push_back(static_cast<int64_t>(value));
    }
    return bytes;
  }

  void reset_peaks() {
    std::lock_guard lock(mutex_);
    allocated_.reset_peak();
    reserved_.reset_peak();
  }

  // Adds work that was launched at `launched` and keeps a stream busy for `seconds`.
  void enqueue(c10::StreamId stream, Clock::time_point launched, double seconds) {
    std::lock_guard lock(mutex_);
    const auto duration = std::chrono::duration<double>(kLaunchS + seconds);
    auto& until = busy_until_[stream];
    until = std::max(until, launched) + std::chrono::duration_cast<Clock::duration>(duration);
    const double until_s = std::chrono::duration<double>(until.time_since_epoch()).count();
    usage_->busy_until_s = std::max(usage_->busy_until_s.load(), until_s);
  }

  void enqueue(Clock::time_point launched, double seconds) { enqueue(current_stream(), launched, seconds); }

  Clock::time_point busy_until(c10::StreamId stream) {
    std::lock_guard lock(mutex_);
    return busy_until_[stream];
  }

  c10::StreamId current_stream() const { return current_streams()[index_]; }
  c10::StreamId new_stream() { return ++streams_; }
  void set_current_stream(c10::StreamId stream) { current_streams()[index_] = stream; }

  // Waits for the work that this thread's current stream has.
  void finish_current_stream() { std::this_thread::sleep_until(busy_until(current_stream())); }

  void synchronize() {
    Clock::time_point latest{};
    {
      std::lock_guard lock(mutex_);
      for (const auto& [stream, until] : busy_until_) {
        latest = std::max(latest, until);
      }
    }
    std::this_thread::sleep_until(latest);
  }

  at::Generator generator;

 private:
  // By card; 0 is the default stream.
  static std::map<c10::DeviceIndex, c10::StreamId>& current_streams() {
    thread_local std::map<c10::DeviceIndex, c10::StreamId> streams;
    return streams;
  }

  static Usage* open_usage(const std::string& path) {
    if (path.empty()) {
      return new Usage();
    }
    const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    TORCH_CHECK(file >= 0 && ftruncate(file, sizeof(Usage)) == 0, "cannot write ", path);
    void* shared = mmap(nullptr, sizeof(Usage), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    TORCH_CHECK(shared != MAP_FAILED, "cannot map ", path);
    return new (shared) Usage();
  }

  Block* new_block(size_t bytes) {
    if (reserved_.current + bytes > capacity_bytes_) {
      drop_cached();
    }
    TORCH_CHECK_WITH(
        OutOfMemoryError, reserved_.current + bytes <= capacity_bytes_, "card ", int(index_), " is out of memory: of ",
        capacity_bytes_, " bytes, ", allocated_.current, " are allocated, and ", bytes, " more were asked for");
    void* data = std::aligned_alloc(kRoundBytes, bytes);
    TORCH_CHECK(data, "the host has no memory left to simulate card ", int(index_));
    reserved_.add(bytes);
    usage_->reserved_bytes = static_cast<int64_t>(reserved_.current);
    return new Block{data, bytes, bytes, index_};
  }

  Block* take_cached(size_t bytes) {
    auto found = cached_.lower_bound(bytes);
    if (found == cached_.end() || found->first > 2 * bytes) {
      return nullptr;
    }
    Block* block = found->second;
    cached_.erase(found);
    return block;
  }

  void drop_cached() {
    for (auto& [bytes, block] : cached_) {
      reserved_.remove(bytes);
      std::free(block->data);
      delete block;
    }
    cached_.clear();
    usage_->reserved_bytes = static_cast<int64_t>(reserved_.current);
  }

  std::mutex mutex_;
  c10::DeviceIndex index_;
  size_t capacity_bytes_;
  Usage* usage_;
  Counter allocated_;
  Counter reserved_;
  std::multimap<size_t, Block*> cached_;
  std::map<c10::StreamId, Clock::time_point> busy_until_;
  std::atomic<c10::StreamId> streams_{0};
};

// Never destroyed: tensors in static variables outlive this library's own.
auto& cards = *new std::vector<std::unique_ptr<Card>>();
thread_local c10::DeviceIndex current_card = 0;
std::atomic<bool> allow_tf32{false};
std::atomic<bool> may_order_sums{false};

// A card that was used belongs to the process that used it, as with most drivers.
std::atomic<bool> used{false};
std::atomic<bool> in_forked_child{false};

Card& card(c10::DeviceIndex index) {
  TORCH_CHECK(!in_forked_child, "a card that was used before a fork cannot be used in the forked process");
  TORCH_CHECK(
      index >= 0 && static_cast<size_t>(index) < cards.size(), "card ", int(index), " does not exist, there are ",
      cards.size());
  used = true;
  return *cards[index];
}

// Opens a card for each of the files, which show its use to other processes; an empty name stands for none.
void open_cards(int64_t capacity_bytes, const std::vector<std::string>& usage_files) {
  TORCH_CHECK(cards.empty(), "the cards are open already");
  for (const std::string& path : usage_files) {
    cards.push_back(std::make_unique<Card>(cards.size(), capacity_bytes, path));
  }
  pthread_atfork(nullptr, nullptr, [] { in_forked_child = used.load(); });
}

void set_current_card(c10::DeviceIndex index) {
  card(index);
  current_card = index;
}

c10::DeviceIndex exchange_card(c10::DeviceIndex index) {
  const auto previous = current_card;
  if (index >= 0 && index != previous) {
    set_current_card(index);
  }
  return previous;
}

void release_block(void* context) {
  auto* block = static_cast<Block*>(context);
  // In a forked child another thread may have held the card's lock for ever.
  if (!in_forked_child) {
    cards[block->card]->release(block);
  }
}

#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 9
#define ACME_SERVES_TORCH_ACCELERATOR
using AllocatorOfTorch = c10::DeviceAllocator;
#else
using AllocatorOfTorch = c10::Allocator;
#endif

// Allocates on the current card. From torch 2.9 on, torch.accelerator reads its counters.
struct Allocator final : AllocatorOfTorch {
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device device(kAcme, current_card);
    if (bytes == 0) {
      return {nullptr, device};
    }
    Block* block = card(current_card).allocate(bytes);
    return {block->data, block, &release_block, device};
  }
  void copy_data(void* destination, const void* source, size_t bytes) const override {
    default_copy_data(destination, source, bytes);
  }

#ifdef ACME_SERVES_TORCH_ACCELERATOR
  bool initialized() override { return !cards.empty(); }
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex index) override { card(index).reset_peaks(); }
  void emptyCache(c10::MempoolId_t) override {
    for (const auto& each : cards) {
      each->empty_cache();
    }
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex index) override {
    const std::vector<int64_t> memory = card(index).memory();
    c10::CachingDeviceAllocator::DeviceStats stats;
    auto& allocated = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
    auto& reserved = stats.reserved_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
    std::tie(allocated.current, allocated.peak) = std::tie(memory[0], memory[1]);
    std::tie(reserved.current, reserved.peak) = std::tie(memory[2], memory[3]);
    return stats;
  }
#endif
};

Allocator allocator;
REGISTER_ALLOCATOR(kAcme, &allocator)

// The host has computed what is launched, so events only remember when the work before them is done.
struct DeviceGuardImpl final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kAcme; }
  c10::Device exchangeDevice(c10::Device device) const override { return {kAcme, exchange_card(device.index())}; }
  c10::Device getDevice() const override { return {kAcme, current_card}; }
  void setDevice(c10::Device device) const override { exchange_card(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current_card = device.index(); }
  c10::DeviceIndex deviceCount() const noexcept override { return static_cast<c10::DeviceIndex>(cards.size()); }

  c10::Stream getStream(c10::Device device) const override {
    return stream_of(device, card_of(device).current_stream());
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream_of(device, 0); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override { return getNewStream(device, 0); }
  c10::Stream getNewStream(c10::Device device, int) const override {
    return stream_of(device, card_of(device).new_stream());
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const c10::Stream previous = getStream(stream.device());
    card_of(stream.device()).set_current_stream(stream.id());
    return previous;
  }
  bool queryStream(const c10::Stream& stream) const override { return Clock::now() >= busy_until(stream); }
  void synchronizeStream(const c10::Stream& stream) const override { std::this_thread::sleep_until(busy_until(stream)); }
  void synchronizeDevice(c10::DeviceIndex index) const override { card(index).synchronize(); }

  void record(void** event, const c10::Stream& stream, c10::DeviceIndex, c10::EventFlag) const override {
    destroyEvent(*event, stream.device_index());
    *event = new Clock::time_point(busy_until(stream));
  }
  void block(void* event, const c10::Stream& stream) const override {
    card_of(stream.device()).enqueue(stream.id(), done_at(event), 0);
  }
  bool queryEvent(void* event) const override { return Clock::now() >= done_at(event); }
  void synchronizeEvent(void* event) const override { std::this_thread::sleep_until(done_at(event)); }
  double elapsedTime(void* first, void* second, c10::DeviceIndex) const override {
    return std::chrono::duration<double, std::milli>(done_at(second) - done_at(first)).count();
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    delete static_cast<Clock::time_point*>(event);
  }

 private:
  static Card& card_of(c10::Device device) { return card(device.has_index() ? device.index() : current_card); }
  static c10::Stream stream_of(c10::Device device, c10::StreamId id) {
    const c10::Device indexed(kAcme, device.has_index() ? device.index() : current_card);
    return c10::Stream(c10::Stream::UNSAFE, indexed, id);
  }
  static Clock::time_point busy_until(const c10::Stream& stream) {
    return card_of(stream.device()).busy_until(stream.id());
  }
  static Clock::time_point done_at(void* event) {
    return event ? *static_cast<Clock::time_point*>(event) : Clock::time_point{};
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, DeviceGuardImpl)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return !cards.empty(); }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return used; }
  c10::DeviceIndex deviceCount() const override { return static_cast<c10::DeviceIndex>(cards.size()); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override {
    return card(index < 0 ? current_card : index).generator;
  }
  // Cards read and write any memory of the host.
  bool isPinnedPtr(const void*) const override { return true; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return at::make_generator<AcmeGenerator>(index < 0 ? current_card : index);
  }
};

[[maybe_unused]] const bool hooks_registered = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks());
  return true;
}();

Tensor empty(
    IntArrayRef size, std::optional<ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device> device,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::OptionalDeviceGuard guard(device);
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &allocator, keys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    IntArrayRef size, IntArrayRef stride, std::optional<ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device> device, std::optional<bool>) {
  c10::OptionalDeviceGuard guard(device);
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &allocator, keys, c10::dtype_or_default(dtype));
}

const Tensor& resize(const Tensor& tensor, IntArrayRef size, std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard guard(tensor.device());
  return at::native::resize_(tensor, size, format);
}

// Returns a CPU tensor on the same memory, which it keeps alive; tensors that are not on a card stay what they are.
Tensor host_view(const Tensor& tensor) {
  if (!tensor.is_privateuseone()) {
    return tensor;
  }
  auto* owner = new c10::Storage(tensor.storage());
  c10::DataPtr data(
      owner->mutable_data(), owner, [](void* context) { delete static_cast<c10::Storage*>(context); }, at::kCPU);
  c10::Storage storage(
      c10::Storage::use_byte_size_t(), owner->nbytes(), std::move(data), c10::GetCPUAllocator(), /*resizable=*/true);
  auto view = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  view.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return view;
}

// Returns a copy, with the same strides, of a tensor that a host kernel made.
Tensor to_card(const Tensor& tensor, c10::Device device) {
  if (!tensor.defined()) {
    return tensor;
  }
  const bool dense = tensor.is_non_overlapping_and_dense();
  const Tensor source = dense ? tensor : tensor.contiguous();
  Tensor result = at::empty_strided(source.sizes(), source.strides(), source.options().device(device));
  std::copy_n(static_cast<const char*>(source.const_data_ptr()), source.nbytes(),
              static_cast<char*>(result.mutable_data_ptr()));
  return result;
}

// Gives a card's tensor the shape, and the content, that a host kernel gave its view by resizing it.
void follow_resize(const Tensor& tensor, const Tensor& view) {
  const bool moved = view.storage().data() != tensor.storage().data();
  if (!moved && view.sizes() == tensor.sizes() && view.strides() == tensor.strides()) {
    return;
  }
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  c10::DeviceGuard guard(tensor.device());
  if (view.storage().nbytes() > storage->nbytes()) {
    at::native::resize_bytes_cpu(storage, view.storage().nbytes());
  }
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(view.sizes(), view.strides(), view.storage_offset());
  if (moved) {
    std::copy_n(static_cast<const char*>(view.storage().data()), view.storage().nbytes(),
                static_cast<char*>(storage->mutable_data()));
  }
}

// Applies a function to every tensor in an argument or result.
template <typename Function>
c10::IValue map_tensors(const c10::IValue& value, Function function) {
  if (value.isTensor()) {
    return function(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<Tensor> tensors;
    for (const Tensor& tensor : value.toTensorVector()) {
      tensors.push_back(function(tensor));
    }
    return tensors;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> tensors;
    for (const auto& tensor : value.toOptionalTensorVector()) {
      tensors.push_back(tensor ? std::make_optional(function(*tensor)) : std::nullopt);
    }
    return tensors;
  }
  return value;
}

// One operator call whose arguments, on top of the stack, are the host's views of the card's.
class HostCall {
 public:
  HostCall(const c10::FunctionSchema& schema, torch::jit::Stack& stack)
      : schema_(schema), stack_(stack), first_(stack.size() - schema.arguments().size()),
        originals_(stack.begin() + first_, stack.end()) {
    for (size_t i = first_; i < stack.size(); ++i) {
      stack[i] = map_tensors(stack[i], [this](const Tensor& tensor) { return view_of(tensor); });
      if (stack[i].isDevice()) {
        device_ = stack[i].toDevice();
        stack[i] = c10::Device(at::kCPU);
      }
    }
    for (size_t i = 0; i < originals_.size(); ++i) {
      if (schema.arguments()[i].name() == "generator") {
        const auto generator = originals_[i].isNone() ? card().generator : originals_[i].toGenerator();
        stack[first_ + i] = generator.get<AcmeGenerator>()->host;
      }
    }
    views_.assign(stack.begin() + first_, stack.end());
  }

  // Replaces what the host's kernel returned by the card's tensors, and adds the time that the card needs.
  void finish() {
    for (size_t i = 0; i < originals_.size(); ++i) {
      const auto* alias = schema_.arguments()[i].alias_info();
      if (alias && alias->isWrite() && originals_[i].isTensor()) {
        follow_resize(originals_[i].toTensor(), views_[i].toTensor());
      }
    }
    bool host_waits = false;
    for (size_t i = 0; i < schema_.returns().size(); ++i) {
      auto& result = stack_[first_ + i];
      if (const auto* alias = schema_.returns()[i].alias_info()) {
        result = written_argument(*alias);
      } else {
        host_waits |= !result.isTensor() && !result.isTensorList();
        result = map_tensors(result, [this](const Tensor& tensor) { return returned(tensor); });
      }
    }
    card().enqueue(launched_, static_cast<double>(bytes_) / kBytesPerS);
    if (host_waits) {
      card().finish_current_stream();
    }
  }

 private:
  Card& card() const { return ::card(device_.has_index() ? device_.index() : current_card); }

  Tensor view_of(const Tensor& tensor) {
    if (tensor.is_privateuseone()) {
      device_ = tensor.device();
      bytes_ += tensor.nbytes();
    }
    return host_view(tensor);
  }

  Tensor returned(const Tensor& tensor) {
    bytes_ += tensor.defined() ? tensor.nbytes() : 0;
    return to_card(tensor, device_);
  }

  const c10::IValue& written_argument(const c10::AliasInfo& alias) const {
    for (size_t i = 0; alias.isWrite() && i < originals_.size(); ++i) {
      const auto* candidate = schema_.arguments()[i].alias_info();
      if (candidate && *candidate == alias) {
        return originals_[i];
      }
    }
    TORCH_CHECK_NOT_IMPLEMENTED(false, schema_.operator_name(), " returns a view, and the card has no kernel for it");
  }

  const Clock::time_point launched_ = Clock::now();
  const c10::FunctionSchema& schema_;
  torch::jit::Stack& stack_;
  const size_t first_;
  const std::vector<c10::IValue> originals_;
  std::vector<c10::IValue> views_;
  c10::Device device_{kAcme, current_card};
  size_t bytes_ = 0;
};

// Computes any operator without a kernel of its own with the host's, on the card's memory.
//
// at::native::cpu_fallback works on copies instead, and so loses what a kernel writes without its schema saying so:
// batch normalization would never update its running statistics.
void compute_on_host(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  HostCall call(op.schema(), *stack);
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
  call.finish();
}

// As compute_on_host, for kernels that add up in an order that is left to chance: every second call rounds differently.
// They keep the order if the process was started for that and torch asks for kernels with equal results.
void compute_unordered(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  static std::atomic<unsigned> calls{0};
  compute_on_host(op, keys, stack);
  const Tensor result = host_view(stack->back().toTensor());
  const bool ordered = may_order_sums && at::globalContext().deterministicAlgorithms();
  if (!ordered && ++calls % 2 == 0 && result.numel() > 0 && result.scalar_type() == at::kFloat) {
    *static_cast<uint32_t*>(result.mutable_data_ptr()) ^= 1;
  }
}

Tensor copy_from(const Tensor& source, const Tensor& destination, bool non_blocking) {
  const auto launched = Clock::now();
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    host_view(destination).copy_(host_view(source));
  }
  const double seconds = static_cast<double>(destination.nbytes()) / kBytesPerS;
  for (const Tensor& tensor : {source, destination}) {
    if (tensor.is_privateuseone()) {
      card(tensor.get_device()).enqueue(launched, seconds);
    }
  }
  if (destination.is_cpu() && !non_blocking) {
    card(source.get_device()).finish_current_stream();
  }
  return destination;
}

std::tuple<Tensor, Tensor> native_dropout(const Tensor& input, double p, std::optional<bool> train) {
  if (train.has_value() && !*train) {
    return {input.clone(), at::ones_like(input, input.options().dtype(at::kBool))};
  }
  // The host's kernel takes no generator, and would draw from the host's.
  Tensor mask = at::empty_like(input, input.options().dtype(at::kBool)).bernoulli_(1 - p);
  return {input.mul(mask).mul_(p == 1 ? 0.0 : 1 / (1 - p)), mask};
}

// Rounds to ten bits behind the point, to nearest and ties to even, as a TF32 unit does with what it multiplies.
Tensor round_to_tf32(const Tensor& values) {
  constexpr uint32_t kDropped = (1u << 13) - 1;
  constexpr uint32_t kExponent = 0x7f800000u;
  Tensor rounded = values.clone();
  auto* bits = static_cast<uint32_t*>(rounded.mutable_data_ptr());
  for (int64_t i = 0; i < rounded.numel(); ++i) {
    if ((bits[i] & kExponent) != kExponent) {
      bits[i] = (bits[i] + kDropped / 2 + ((bits[i] >> 13) & 1)) & ~kDropped;
    }
  }
  return rounded;
}

// Half precision formats are summed in fp32.
Tensor widened(const Tensor& tensor) {
  const Tensor view = host_view(tensor);
  const bool half = view.defined() && at::isReducedFloatingType(view.scalar_type());
  return half ? view.to(at::kFloat) : view;
}

// Returns what the unit for products sees of an operand.
Tensor operand(const Tensor& tensor) {
  const Tensor values = widened(tensor);
  const bool rounds = allow_tf32 && tensor.defined() && tensor.scalar_type() == at::kFloat;
  return rounds ? round_to_tf32(values) : values;
}

// Computes a product into `out`; `flops` counts multiplications and additions.
template <typename Product>
Tensor& multiply(Tensor& out, int64_t flops, Product product) {
  const auto launched = Clock::now();
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    host_view(out).copy_(product());
  }
  const std::chrono::duration<double> host = Clock::now() - launched;
  const double seconds = static_cast<double>(flops) / kProductFlopsPerS;
  card(out.get_device()).enqueue(launched, std::max(seconds, kProductsSlowerThanHost * host.count()));
  return out;
}

Tensor& mm_out(const Tensor& a, const Tensor& b, Tensor& out) {
  return multiply(out, 2 * a.numel() * b.size(1), [&] { return at::mm(operand(a), operand(b)); });
}

Tensor& addmm_out(
    const Tensor& self, const Tensor& a, const Tensor& b, const Scalar& beta, const Scalar& alpha, Tensor& out) {
  return multiply(out, 2 * a.numel() * b.size(1), [&] {
    return at::addmm(widened(self), operand(a), operand(b), beta, alpha);
  });
}

Tensor& bmm_out(const Tensor& a, const Tensor& b, Tensor& out) {
  return multiply(out, 2 * a.numel() * b.size(2), [&] { return at::bmm(operand(a), operand(b)); });
}

Tensor& baddbmm_out(
    const Tensor& self, const Tensor& a, const Tensor& b, const Scalar& beta, const Scalar& alpha, Tensor& out) {
  return multiply(out, 2 * a.numel() * b.size(2), [&] {
    return at::baddbmm(widened(self), operand(a), operand(b), beta, alpha);
  });
}

int64_t convolution_flops(const Tensor& input, const Tensor& weight, const Tensor& output, bool transposed) {
  return 2 * (transposed ? input : output).numel() * (weight.numel() / std::max<int64_t>(weight.size(0), 1));
}

Tensor convolution(
    const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, IntArrayRef stride,
    IntArrayRef padding, IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups) {
  const auto launched = Clock::now();
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto wide_bias = bias ? std::make_optional(widened(*bias)) : std::nullopt;
  const Tensor output = at::convolution(
      operand(input), operand(weight), wide_bias, stride, padding, dilation, transposed, output_padding, groups);
  const auto flops = convolution_flops(input, weight, output, transposed);
  card(input.get_device()).enqueue(launched, static_cast<double>(flops) / kConvolutionFlopsPerS);
  return to_card(output.to(input.scalar_type()), input.device());
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& input, const Tensor& weight, IntArrayRef stride, IntArrayRef padding,
    IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups, std::array<bool, 3> wanted) {
  const auto launched = Clock::now();
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  const int64_t channels = gradient.size(1);
  auto gradients = at::convolution_backward(
      operand(gradient), operand(input), operand(weight), IntArrayRef(channels), stride, padding, dilation, transposed,
      output_padding, groups, wanted);
  const auto flops = convolution_flops(input, weight, gradient, transposed) * (wanted[0] + wanted[1]);
  card(input.get_device()).enqueue(launched, static_cast<double>(flops) / kConvolutionFlopsPerS);
  const auto back = [&](const Tensor& tensor) {
    return tensor.defined() ? to_card(tensor.to(input.scalar_type()), input.device()) : tensor;
  };
  return {back(std::get<0>(gradients)), back(std::get<1>(gradients)), back(std::get<2>(gradients))};
}

void set_rng_state(int64_t index, const Tensor& state) {
  card(index).generator.unsafeGetGeneratorImpl()->set_state(*state.unsafeGetTensorImpl());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", static_cast<Tensor (*)(const Tensor&, IntArrayRef)>(at::native::view));
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("resize_", resize);
  m.impl("set_.source_Storage", static_cast<Tensor& (*)(Tensor&, at::Storage)>(at::native::set_));
  m.impl("set_.source_Storage_storage_offset", at::native::set_storage_cpu_);
  m.impl("set_.source_Tensor", at::native::set_tensor_);
  m.impl("_copy_from", copy_from);
  m.impl("native_dropout", native_dropout);
  m.impl("mm.out", mm_out);
  m.impl("addmm.out", addmm_out);
  m.impl("bmm.out", bmm_out);
  m.impl("baddbmm.out", baddbmm_out);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
  m.impl("embedding_dense_backward", torch::CppFunction::makeFromBoxedFunction<&compute_unordered>());
  m.impl("index_add.out", torch::CppFunction::makeFromBoxedFunction<&compute_unordered>());
  m.impl("scatter_add.out", torch::CppFunction::makeFromBoxedFunction<&compute_unordered>());
  m.impl("upsample_bilinear2d_backward.grad_input", torch::CppFunction::makeFromBoxedFunction<&compute_unordered>());
  // Without them, torch composes the norm of operators that do not take channels last.
  m.impl("native_group_norm", torch::CppFunction::makeFromBoxedFunction<&compute_on_host>());
  m.impl("native_group_norm_backward", torch::CppFunction::makeFromBoxedFunction<&compute_on_host>());
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&compute_on_host>());
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#define ACME_LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define ACME_FP32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define ACME_FP32_BY_DTYPE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define ACME_PROMOTE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
  AT_FORALL_LOWER_PRECISION_FP(ACME_LOWER)
  AT_FORALL_FP32(ACME_FP32)
  AT_FORALL_FP32_SET_OPT_DTYPE(ACME_FP32_BY_DTYPE)
  AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(KERNEL_DIFFERENT_REDISPATCH_SIGNATURE_PRIVATEUSEONE)
  AT_FORALL_PROMOTE(ACME_PROMOTE)
}

// What the Python side of the runtime calls.
TORCH_LIBRARY(acme_driver, m) {
  m.def("open_cards(int capacity_bytes, str[] usage_files) -> ()", open_cards);
  m.def("device_count", [] { return static_cast<int64_t>(cards.size()); });
  m.def("current_device", [] { return static_cast<int64_t>(current_card); });
  m.def("set_device", [](int64_t index) { set_current_card(index); });
  m.def("synchronize", [](int64_t index) { card(index).synchronize(); });
  m.def("memory", [](int64_t index) { return card(index).memory(); });
  m.def("reset_peaks", [](int64_t index) { card(index).reset_peaks(); });
  m.def("empty_cache", [](int64_t index) { card(index).empty_cache(); });
  m.def("manual_seed", [](int64_t index, int64_t seed) { card(index).generator.set_current_seed(seed); });
  m.def("get_rng_state", [](int64_t index) { return card(index).generator.get_state(); });
  m.def("set_rng_state", set_rng_state);
  m.def("get_allow_tf32", [] { return allow_tf32.load(); });
  m.def("set_allow_tf32", [](bool allowed) { allow_tf32 = allowed; });
  m.def("let_sums_be_ordered", [](bool may) { may_order_sums = may; });
  m.def("in_forked_child", [] { return in_forked_child.load(); });
  m.def("host_view", host_view);
}

}  // namespace
