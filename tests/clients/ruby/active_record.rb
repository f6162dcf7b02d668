# ActiveRecord with the statements that the gem neighbor writes: `WHERE embedding IS NOT NULL ORDER BY … LIMIT`, answered by an
# `Index Scan`, as its own tests assert. The gem itself is not among Debian's packages.
# Reads a task from standard input, prints what the client saw, as JSON.

require "active_record"
require "json"

TASK = JSON.parse($stdin.read)

ActiveRecord::Base.establish_connection(adapter: "postgresql", host: TASK["host"], database: TASK["database"], username: "postgres")

class VectorType < ActiveRecord::Type::Value
  def type = :vector
  def serialize(value) = value && "[#{value.join(",")}]"
  def cast_value(value) = value.is_a?(String) ? value[1..-2].split(",").map(&:to_f) : value.to_a
end

ActiveRecord::Schema.verbose = false
ActiveRecord::Schema.define do
  enable_extension TASK["extension"]
  create_table(:items) { |t| t.column :embedding, "vector(3)" }
  add_index :items, :embedding, using: TASK["hnsw"].to_sym, opclass: :vector_l2_ops, name: "by_l2"
  add_index :items, :embedding, using: TASK["hnsw"].to_sym, opclass: :vector_cosine_ops, name: "by_cosine"
end

class Item < ActiveRecord::Base
  attribute :embedding, VectorType.new

  def self.nearest(operator, vector)
    order = Arel.sql("\"items\".\"embedding\" #{operator} #{connection.quote("[#{vector.join(",")}]")}")
    select("items.*", "#{order} AS neighbor_distance").where.not(embedding: nil).reorder(order)
  end
end

Item.insert_all(TASK["rows"].map { |id, embedding| { id: id, embedding: embedding } })
Item.connection.execute("ANALYZE items")
seen = %w[<-> <=>].map do |operator|
  relation = Item.nearest(operator, TASK["query"]).limit(5)
  [relation.map { |item| [item.id, item.embedding, item.neighbor_distance.round(5)] }, relation.explain.include?("Index Scan using by_")]
end
puts "", JSON.generate(seen: seen, indexes: Item.connection.indexes(:items).map { |i| [i.name, i.using, i.opclasses] }.sort)
